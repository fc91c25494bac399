//! Real traffic between pods.

use observer::capture::{Capture, CaptureConfig};

use observer_ebpf::policy::slot;

use crate::support::{Lab, Wiring, skip};

#[test]
fn the_kernel_takes_the_programs_that_judge() {
    if skip() {
        return;
    }
    let lab = Lab::new(Wiring::Routed);
    let config = CaptureConfig { judge: true, ..CaptureConfig::default() };
    let mut loaded = lab.node.within(|| Capture::load(&config)).unwrap();
    let maps = loaded.policy_maps();
    let capture = lab.node.within(|| loaded.attach()).unwrap();
    for hook in capture.status().status().hooks {
        assert_eq!(hook.error, None, "{}", hook.name);
    }
    // Local addresses change it too.
    assert_eq!(slot(maps.unwrap().generation()), 0);
}
