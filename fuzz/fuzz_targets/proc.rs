//! Lines of `/proc` and of resolv.conf, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::proc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::proc(bytes));
