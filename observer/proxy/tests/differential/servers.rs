//! nginx and lighttpd, each behind a socket in a folder of its own, with the same files.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Servers {
    dir: tempfile::TempDir,
    running: Vec<Child>,
}

impl Servers {
    /// `None` where they are not installed, which is said, and a failure where `CI_NO_SKIP` is set.
    pub(crate) async fn start() -> Option<Self> {
        for program in ["/usr/sbin/nginx", "/usr/sbin/lighttpd"] {
            if !Path::new(program).exists() {
                assert!(std::env::var_os("CI_NO_SKIP").is_none(), "SKIP: differential: no {program}");
                eprintln!("SKIP: differential: no {program}: make setup installs it");
                return None;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["root/dir", "root/cgi"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for (name, text) in [
            ("index.html", "<p>index</p>\n".to_owned()),
            ("dir/index.html", "<p>dir</p>\n".to_owned()),
            ("text.txt", "text\n".repeat(100)),
            ("empty.txt", String::new()),
            ("big.txt", "big\n".repeat(100_000)),
            ("a b.txt", "space\n".to_owned()),
            ("cgi/cat.sh", "printf 'Content-Type: text/plain\\r\\n\\r\\n'; exec cat\n".to_owned()),
        ] {
            fs::write(at("root").join(name), text).unwrap();
        }
        let place = dir.path().to_str().unwrap();
        for (name, text) in
            [("nginx.conf", include_str!("nginx.conf")), ("lighttpd.conf", include_str!("lighttpd.conf"))]
        {
            fs::write(at(name), text.replace("DIR", place)).unwrap();
        }
        let start = |program: &str, arguments: &[&str], config: &str| {
            let mut command = Command::new(program);
            command.args(arguments).arg(at(config)).stderr(Stdio::inherit());
            command.spawn().unwrap()
        };
        let running = vec![
            start("/usr/sbin/nginx", &["-p", place, "-c"], "nginx.conf"),
            start("/usr/sbin/lighttpd", &["-D", "-f"], "lighttpd.conf"),
        ];
        let servers = Self { dir, running };
        let deadline = Instant::now() + Duration::from_mins(1);
        for socket in servers.sockets() {
            while UnixStream::connect(&socket).is_err() {
                assert!(Instant::now() < deadline, "{} does not answer", socket.display());
                // A server has no event for "I listen".
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Some(servers)
    }

    pub(crate) fn sockets(&self) -> [PathBuf; 2] {
        ["nginx.sock", "lighttpd.sock"].map(|name| self.dir.path().join(name))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.running {
            // One that has ended by itself is no reason to fail twice.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
