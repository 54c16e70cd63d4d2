//! Lines of `/proc/PID/maps`, as the fuzzer finds them. Only hands the bytes to the property `tentative_sys::fuzzing::maps`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative_sys::fuzzing::maps(bytes));
