//! The text of a policy's rules, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::rules`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::rules(bytes));
