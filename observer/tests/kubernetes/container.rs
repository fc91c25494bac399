//! The chart's container without a runtime: its files, and nothing else of the machine; its mounts, its arguments and no
//! more than its capabilities, in a lab's node.

use crate::support::OBSERVER;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Objects by kind and name.
pub(crate) type Objects = BTreeMap<(String, String), Value>;

/// What becomes a process.
pub(crate) struct Container {
    script: String,
    capabilities: Vec<String>,
    command: Vec<String>,
    spec: Value,
    /// Where the files of ConfigMaps and secrets are.
    files: PathBuf,
}

impl Container {
    /// The container of the only DaemonSet among the objects, with this service account. Files go to `dir`, which it has, too;
    /// folders of the node are made there, but for that of the lab's namespaces.
    pub(crate) fn of(objects: &Objects, account: &Path, dir: &Path) -> Self {
        let daemon_set = objects.iter().find(|((kind, _), _)| kind == "DaemonSet").unwrap().1;
        let pod = &daemon_set["spec"]["template"]["spec"];
        let spec = pod["containers"][0].clone();
        let security = &spec["securityContext"];
        for (what, is) in [
            ("hostNetwork of the pod", pod["hostNetwork"] == true),
            ("not privileged", security["privileged"] == false),
            ("no new privileges", security["allowPrivilegeEscalation"] == false),
            ("root", security["runAsUser"] == 0 && security["runAsGroup"] == 0),
            ("a root that is read only", security["readOnlyRootFilesystem"] == true),
            ("no capability by default", security["capabilities"]["drop"][0] == "ALL"),
        ] {
            assert!(is, "{what}: {spec}");
        }
        let texts = |list: &Value| list.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
        let files = dir.join("volumes");
        let script = script(objects, pod, &spec, account, dir, &files);
        Self {
            script,
            capabilities: texts(&security["capabilities"]["add"]),
            command: [texts(&spec["command"]), texts(&spec["args"])].concat(),
            spec,
            files,
        }
    }

    /// Its part of the pod's specification.
    pub(crate) fn spec(&self) -> &Value {
        &self.spec
    }

    /// A file of a ConfigMap or a secret.
    pub(crate) fn file(&self, object: &str, file: &str) -> PathBuf {
        self.files.join(object).join(file)
    }

    /// A command that runs it in a network namespace; arguments that are added are the daemon's.
    pub(crate) fn command(&self, netns: &Path) -> Command {
        let held: Vec<String> =
            self.capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
        let held = format!("-all{}", held.concat());
        let mut command = observer_lab::netns::command_in(netns, "unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-c", &self.script, "container"]);
        // Root's capabilities are those that are not taken out of the bounding set.
        command.args(["--reuid=0", "--regid=0", "--clear-groups", "--no-new-privs"]);
        command.args([format!("--bounding-set={held}"), "--inh-caps=-all".to_owned(), "--".to_owned()]);
        command.args(&self.command);
        command
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Makes the root and goes there.
fn script(objects: &Objects, pod: &Value, spec: &Value, account: &Path, dir: &Path, files: &Path) -> String {
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    let (root, dir) = (root.display(), dir.display());
    // A dynamic program's libraries stand in for a static program; sysfs is new, as a runtime's is, so that nothing of the
    // machine's is below it.
    let mut script = format!(
        "set -e\nmount -t tmpfs root {root}\ncd {root}\nmkdir -p usr bin proc sys .{dir}\n\
         for link in lib lib64; do ln -s usr/$link $link; done\n\
         touch bin/observer\nmount --bind {OBSERVER} bin/observer\nmount --bind /usr usr\n\
         mount -t proc proc proc\nmount -t sysfs -o ro sysfs sys\nmount --bind {dir} .{dir}\n"
    );
    for mount in spec["volumeMounts"].as_array().unwrap() {
        let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]);
        let source = source(objects, volume.unwrap(), files);
        let at = text(&mount["mountPath"]);
        if at == "/sys/fs/bpf" {
            // The node's own. What stays in it goes with the container.
            writeln!(script, "mount -t bpf bpf {}", source.display()).unwrap();
        }
        // What is below the kernel's file systems is there.
        let made = if at.starts_with("/sys/") { "test -d" } else { "mkdir -p" };
        writeln!(script, "{made} .{at}\nmount --rbind {} .{at}", source.display()).unwrap();
        if mount["readOnly"] == true {
            writeln!(script, "mount -o remount,bind,ro .{at}").unwrap();
        }
    }
    // Which the API server adds to every pod.
    let (at, account) = ("var/run/secrets/kubernetes.io/serviceaccount", account.display());
    writeln!(script, "mkdir -p {at}\nmount --bind {account} {at}").unwrap();
    script
        + &format!(
            "mount -o remount,ro {root}\nexec chroot {root} /usr/bin/env PATH=/bin /usr/bin/setpriv \"$@\"\n"
        )
}

/// What a volume is on the machine.
fn source(objects: &Objects, volume: &Value, files: &Path) -> PathBuf {
    let of = |kind: &str, name: &Value| &objects[&(kind.to_owned(), text(name))]["data"];
    if let Some(path) = volume["hostPath"]["path"].as_str() {
        if path == observer_lab::netns::NETNS_DIR {
            return path.into();
        }
        let folder = files.join("node").join(&path[1..]);
        fs::create_dir_all(&folder).unwrap();
        return folder;
    }
    let (kind, name) = match (&volume["configMap"]["name"], &volume["secret"]["secretName"]) {
        (Value::Null, name) => ("Secret", name),
        (name, _) => ("ConfigMap", name),
    };
    let folder = files.join(text(name));
    fs::create_dir_all(&folder).unwrap();
    for (file, content) in of(kind, name).as_object().unwrap() {
        let content = if kind == "Secret" { decoded(&text(content)) } else { text(content).into_bytes() };
        fs::write(folder.join(file), content).unwrap();
    }
    folder
}

/// What is behind base64.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let mut child =
        Command::new("base64").arg("--decode").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}
