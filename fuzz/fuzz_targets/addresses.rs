//! Socket addresses and the rules about them, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::addresses`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::addresses(bytes));
