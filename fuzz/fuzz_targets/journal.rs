//! The journal of a commit, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::journal(bytes));
