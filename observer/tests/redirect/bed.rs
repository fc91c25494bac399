//! A node with two pods and a service, programs that hand connections over, and the simplest proxy.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _, copy},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Output,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap},
    programs::{SchedClassifier, TcAttachType},
};
use observer::proxy::{routing::Routing, sockets};
use observer_ebpf::{
    Tuple,
    parse::TCP,
    proxy::{LinkWay, ProxyState, way},
};
use observer_lab::{Lab, Scenario, netns, unique_prefix};
use socket2::Socket;
use zerocopy::IntoBytes as _;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer-ebpf-redirect"));

/// What the proxied server listens on; on the next port it is called directly.
pub(crate) const PORT: u16 = 8080;
/// The service's.
pub(crate) const SERVICE_PORT: u16 = 80;
pub(crate) const CLIENT: [&str; 2] = ["10.61.0.1", "fd61::1"];
pub(crate) const SERVER: [&str; 2] = ["10.61.0.2", "fd61::2"];
pub(crate) const SERVICE: [&str; 2] = ["10.96.0.10", "fd96::10"];
pub(crate) const OUTSIDE: [&str; 2] = ["192.168.61.1", "fd60::1"];

pub(crate) struct Bed {
    pub(crate) lab: Lab,
    object: Ebpf,
    proxy: Option<Proxy>,
}

impl Bed {
    /// `wiring` is `routed` or `bridged`.
    pub(crate) fn up(wiring: &str) -> Self {
        let mut text = format!(
            "name = \"redirect\"\n[outside]\naddresses = [\"192.168.61.1/24\", \"fd60::1/64\"]\n\
             [[nodes]]\nname = \"n1\"\nwiring = \"{wiring}\"\naddresses = [\"192.168.61.11\", \"fd60::11\"]\n"
        );
        if wiring == "bridged" {
            text += "gateways = [\"10.61.0.254/24\", \"fd61::fe/64\"]\n";
        }
        for (name, [ipv4, ipv6]) in [("client", CLIENT), ("server", SERVER)] {
            write!(
                text,
                "[[pods]]\nname = \"{name}\"\nnamespace = \"default\"\nnode = \"n1\"\n\
                 ips = [\"{ipv4}\", \"{ipv6}\"]\nlabels = {{ app = \"{name}\" }}\n"
            )
            .unwrap();
        }
        let [ipv4, ipv6] = SERVICE;
        write!(
            text,
            "[[services]]\nname = \"server\"\nnamespace = \"default\"\ncluster_ips = [\"{ipv4}\", \"{ipv6}\"]\n\
             selector = {{ app = \"server\" }}\nports = [{{ port = {SERVICE_PORT}, target_port = {PORT} }}]\n"
        )
        .unwrap();
        let scenario = Scenario::parse(&text, "redirect").unwrap();
        let lab = Lab::up(&scenario, &unique_prefix("redirect")).unwrap();
        serve(&lab);
        let object = inside(&lab.node_netns("n1"), attach);
        let mut bed = Self { lab, object, proxy: None };
        let mut proxied = HashMap::<_, [u8; 40], u32>::try_from(bed.map("DESTINATIONS")).unwrap();
        for (addresses, port) in [(SERVER, PORT), (SERVICE, SERVICE_PORT)] {
            for address in addresses {
                let mut tuple = Tuple { destination_port: port, protocol: TCP, ..Tuple::default() };
                let address: IpAddr = address.parse().unwrap();
                tuple.ip_version = if address.is_ipv4() { 4 } else { 6 };
                tuple.destination = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                proxied.insert(<[u8; 40]>::try_from(tuple.as_bytes()).unwrap(), 1, 0).unwrap();
            }
        }
        bed
    }

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.object.map_mut(name).unwrap()
    }

    /// Tells the programs where the proxy is.
    pub(crate) fn tell(&mut self, ports: ProxyState) {
        let mut proxy = Array::<_, [u8; 8]>::try_from(self.map("PROXY")).unwrap();
        proxy.set(0, <[u8; 8]>::try_from(ports.as_bytes()).unwrap(), 0).unwrap();
    }

    /// Starts the proxy in the node.
    pub(crate) fn start(&mut self) {
        let (proxy, ports) = Proxy::start(&self.lab);
        self.tell(ports);
        self.proxy = Some(proxy);
    }

    /// Ends it; nobody listens any more.
    pub(crate) fn stop(&mut self) {
        self.proxy.take().unwrap().stop();
    }

    /// Who called whom through the proxy since this was asked last.
    pub(crate) fn proxied(&self) -> Vec<(IpAddr, SocketAddr)> {
        std::mem::take(&mut *self.proxy.as_ref().unwrap().taken.lock().unwrap())
    }

    /// What curl says in a namespace.
    pub(crate) fn curl(from: &Path, address: &str, port: u16) -> Output {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        netns::command_in(from, "curl")
            .args(["-sSg", "--noproxy", "*", "-m", "30", "--connect-timeout", "1"])
            .arg(format!("http://{host}:{port}/"))
            .output()
            .unwrap()
    }

    /// The pod's namespace.
    pub(crate) fn pod(&self, name: &str) -> std::path::PathBuf {
        self.lab.pod_netns(self.lab.scenario().pod("default", name).unwrap())
    }

    /// Sets a sysctl of the node.
    pub(crate) fn sysctl(&self, setting: &str) {
        let status = self.lab.command_in("n1", "sysctl").args(["-qw", setting]).status().unwrap();
        assert!(status.success(), "{setting}");
    }

    /// All rules and routes of the node.
    pub(crate) fn routing(&self) -> String {
        let asked = [["-4", "rule"], ["-6", "rule"], ["-4", "route"], ["-6", "route"]];
        let mut all = String::new();
        for [family, what] in asked {
            let mut command = self.lab.command_in("n1", "ip");
            command.args([family, what, "show"]);
            if what == "route" {
                command.args(["table", "all"]);
            }
            all += &String::from_utf8(command.output().unwrap().stdout).unwrap();
        }
        all
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop();
        }
    }
}

/// Runs it on a thread in a namespace.
pub(crate) fn inside<T: Send>(file: &Path, work: impl FnOnce() -> T + Send) -> T {
    let name = file.file_name().unwrap().to_str().unwrap();
    netns::inside(name, || Ok(work())).unwrap()
}

/// Says to each client which address it has, until the test ends.
fn serve(lab: &Lab) {
    let pod = lab.scenario().pod("default", "server").unwrap();
    for port in [PORT, PORT + 1] {
        let listener =
            inside(&lab.pod_netns(pod), || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let ip = stream.peer_addr().unwrap().ip().to_canonical().to_string();
                // A client that is gone has its test fail.
                let _ = stream.read(&mut [0; 4096]);
                let length = ip.len();
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{ip}");
            }
        });
    }
}

/// Loads the programs and puts them on the links of the calling thread's namespace.
fn attach() -> Ebpf {
    let mut object = Ebpf::load(OBJECT).unwrap();
    let links =
        String::from_utf8(std::process::Command::new("ip").args(["-o", "link"]).output().unwrap().stdout)
            .unwrap();
    // "3: veth0@if2: <...> ... master br0 ... link/ether 02:1a:...".
    let links: Vec<(u32, &str, &str)> = links
        .lines()
        .filter_map(|line| {
            let (index, rest) = line.split_once(": ")?;
            let name = rest.split([':', '@']).next()?;
            Some((index.parse().ok()?, name, rest))
        })
        .filter(|(_, name, _)| *name != "lo")
        .collect();
    let mac = |text: &str| -> [u8; 6] {
        let text = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    };
    let bridge = links.iter().find(|(_, name, _)| *name == "br0").map(|(_, _, text)| mac(text));
    let mut ways = HashMap::<_, u32, [u8; 8]>::try_from(object.map_mut("WAYS").unwrap()).unwrap();
    for (index, name, text) in &links {
        let way = match bridge {
            Some(bridge_mac) if text.contains("master br0") => LinkWay { way: way::PORT, bridge_mac },
            _ if *name == "br0" => LinkWay { way: way::BRIDGE, ..LinkWay::default() },
            _ => LinkWay::default(),
        };
        ways.insert(index, <[u8; 8]>::try_from(way.as_bytes()).unwrap(), 0).unwrap();
    }
    for (program, side) in
        [("observer_redirect", TcAttachType::Ingress), ("observer_redirected", TcAttachType::Egress)]
    {
        let program: &mut SchedClassifier = object.program_mut(program).unwrap().try_into().unwrap();
        program.load().unwrap();
        for (_, name, _) in &links {
            program.attach(name, side).unwrap();
        }
    }
    object
}

/// Takes every connection to where it was going, under the client's address.
struct Proxy {
    taken: Arc<Mutex<Vec<(IpAddr, SocketAddr)>>>,
    listeners: Vec<Socket>,
    threads: Vec<JoinHandle<()>>,
    /// Closed to have the routing taken down.
    running: mpsc::Sender<()>,
}

impl Proxy {
    fn start(lab: &Lab) -> (Self, ProxyState) {
        let taken = Arc::<Mutex<Vec<_>>>::default();
        let name = lab.node_netns("n1").file_name().unwrap().to_str().unwrap().to_owned();
        let (running, ended) = mpsc::channel::<()>();
        let (ready, wait) = mpsc::channel();
        let list = Arc::clone(&taken);
        // Its sockets stay in the namespace that they were made in, and so must the thread that makes more of them.
        let node = std::thread::spawn(move || {
            netns::enter(&name).unwrap();
            let routing = Routing::set_up().unwrap();
            assert!(routing.has_ipv6());
            let listeners = [false, true].map(|ipv6| {
                let socket = sockets::listen(ipv6).unwrap();
                socket.set_nonblocking(false).unwrap();
                socket
            });
            let threads = listeners.each_ref().map(|listener| {
                let (listener, list) = (listener.try_clone().unwrap(), Arc::clone(&list));
                std::thread::spawn(move || accept(&listener.into(), &list))
            });
            ready.send((listeners, threads)).unwrap();
            let _ = ended.recv();
            drop(routing);
        });
        let (listeners, threads) = wait.recv().unwrap();
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let ports =
            ProxyState { ipv4: port(&listeners[0]), ipv6: port(&listeners[1]), ..ProxyState::default() };
        let threads = threads.into_iter().chain([node]).collect();
        (Self { taken, listeners: listeners.into(), threads, running }, ports)
    }

    fn stop(self) {
        for listener in &self.listeners {
            listener.shutdown(Shutdown::Both).unwrap();
        }
        drop((self.listeners, self.running));
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn accept(listener: &TcpListener, taken: &Arc<Mutex<Vec<(IpAddr, SocketAddr)>>>) {
    let mut port = 0_u16;
    while let Ok((client, peer)) = listener.accept() {
        let server = client.local_addr().unwrap();
        taken.lock().unwrap().push((peer.ip(), server));
        port += 1;
        let socket = sockets::connect((peer.ip() != server.ip()).then_some(peer), server, port).unwrap();
        socket.set_nonblocking(false).unwrap();
        let poll = rustix::event::PollFd::new(&socket, rustix::event::PollFlags::OUT);
        rustix::event::poll(&mut [poll], None).unwrap();
        let server = TcpStream::from(socket);
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        std::thread::spawn(move || {
            let (mut server, mut client) = (server, client);
            let _ = copy(&mut server, &mut client);
            let _ = client.shutdown(Shutdown::Write);
        });
    }
}
