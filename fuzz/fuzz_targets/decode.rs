#![no_main]

libfuzzer_sys::fuzz_target!(init: nephros_fuzz::on_own_panics(drop), |data: &[u8]| nephros_fuzz::decode::run(data));
