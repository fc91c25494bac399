//! What a process belongs to, by its cgroup's path.

/// The owner of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A container, by its full id; LXC's by its name.
    Container(String),
    /// A systemd service.
    Unit(String),
}

/// Reads `/proc/<pid>/cgroup`. Container runtimes end the path with the 64 hex digits of the id, bare (cgroupfs) or as
/// `<runtime>-<id>.scope` (systemd): docker, cri-containerd, crio, libpod. LXC's is `lxc.payload.<name>`.
pub(super) fn owner(cgroup_file: &str) -> Option<Owner> {
    let paths = || cgroup_file.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // The innermost container; a runtime may put its processes into a group below it (`/init`, `/container`).
    let container = paths().find_map(|path| path.rsplit('/').find_map(container_id));
    if let Some(id) = container {
        return Some(Owner::Container(id.to_owned()));
    }
    let unit = paths().find_map(|path| {
        path.rsplit('/').find(|part| part.len() > ".service".len() && part.ends_with(".service"))
    });
    unit.map(|unit| Owner::Unit(unit.to_owned()))
}

fn container_id(part: &str) -> Option<&str> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then_some(name);
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
    let is_id = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_and_units_are_recognised() {
        let id = "3f2a9c01d4e5".repeat(5) + "abcd";
        let container = || Some(Owner::Container(id.clone()));
        let unit = |name: &str| Some(Owner::Unit(name.to_owned()));
        let table = [
            (format!("0::/system.slice/docker-{id}.scope"), container()),
            (format!("12:pids:/docker/{id}\n0::/\n"), container()),
            (format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"), container()),
            (format!("0::/kubepods/besteffort/pod7c/{id}"), container()),
            (format!("0::/kubepods.slice/crio-{id}.scope/container"), container()),
            (format!("0::/machine.slice/libpod-{id}.scope/init"), container()),
            ("0::/lxc.payload.web/init.scope".to_owned(), Some(Owner::Container("web".to_owned()))),
            ("0::/lxc.payload./init.scope".to_owned(), None),
            ("0::/system.slice/nginx.service".to_owned(), unit("nginx.service")),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service".to_owned(), unit("x.service")),
            ("0::/user.slice/user-0.slice/session-1.scope".to_owned(), None),
            ("0::/system.slice/.service".to_owned(), None),
            (format!("0::/docker-{}.scope", &id[1..]), None),
            ("0::/".to_owned(), None),
            (String::new(), None),
            ("garbage".to_owned(), None),
        ];
        for (file, expected) in table {
            assert_eq!(owner(&file), expected, "{file}");
        }
    }
}
