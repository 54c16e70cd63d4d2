//! Names as text, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::names`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::names(bytes));
