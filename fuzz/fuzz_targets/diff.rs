//! Differences of files, as the fuzzer finds them. Only hands the bytes to the property `tentative_report::fuzzing::diff`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative_report::fuzzing::diff(bytes));
