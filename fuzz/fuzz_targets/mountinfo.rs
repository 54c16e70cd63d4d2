//! The kernel's list of mounts, as the fuzzer finds them. Only hands the bytes to the property `tentative::fuzzing::mountinfo`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tentative::fuzzing::mountinfo(bytes));
