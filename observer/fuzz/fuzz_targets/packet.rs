#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    observer_ebpf::fuzz::packet(data);
    observer_fuzz::agrees_with_etherparse(data);
});
