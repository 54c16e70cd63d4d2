//! Command lines as a shell reads them, as the fuzzer finds them. Only hands the bytes to the property `tentative_report::fuzzing::command`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative_report::fuzzing::command(bytes));
