//! The filter, compared with the pathway table, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::filter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::filter(bytes));
