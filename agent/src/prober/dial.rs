//! Connections out of other network namespaces. A socket stays in the namespace in which it was made, so one thread that moves
//! from namespace to namespace makes them all, and whoever asked connects them without blocking anybody.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::network::netns;

/// How a container is reached.
#[derive(Debug)]
pub(super) struct Reach {
    /// Its network, where that is not the host's.
    namespace: Option<Arc<File>>,
    /// Where it may listen, in the order in which they are tried: addresses or, in the host's network, a name.
    pub(super) hosts: Vec<String>,
}

impl Reach {
    pub(super) fn host(told: &str) -> Self {
        let loopback = if told.contains(':') { "::1" } else { "127.0.0.1" };
        let told = (told != loopback).then(|| told.to_owned());
        Self { namespace: None, hosts: [loopback.to_owned()].into_iter().chain(told).collect() }
    }

    pub(super) fn inside(namespace: File, addresses: &[IpAddr]) -> Self {
        let addresses = addresses.iter().map(ToString::to_string);
        let hosts = ["127.0.0.1".to_owned()].into_iter().chain(addresses).collect();
        Self { namespace: Some(Arc::new(namespace)), hosts }
    }
}

/// A socket that is wanted.
struct Wanted {
    namespace: Arc<File>,
    ipv6: bool,
    reply: oneshot::Sender<io::Result<TcpSocket>>,
}

/// Makes connections. Cheap to clone; its thread ends with the last one.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    wanted: mpsc::Sender<Wanted>,
}

impl Dialer {
    pub(super) fn start() -> io::Result<Self> {
        let (wanted, requests) = mpsc::channel::<Wanted>();
        let make = move || {
            for Wanted { namespace, ipv6, reply } in requests {
                // Whoever does not wait any more does not want it.
                let _ = reply.send(netns::enter(&*namespace).and_then(|()| socket(ipv6)));
            }
        };
        std::thread::Builder::new().name("probe-sockets".to_owned()).spawn(make)?;
        Ok(Self { wanted })
    }

    pub(super) async fn connect(&self, reach: &Reach, host: &str, port: u16) -> io::Result<TcpStream> {
        let Some(namespace) = &reach.namespace else { return TcpStream::connect((host, port)).await };
        let address: IpAddr = host.parse().map_err(io::Error::other)?;
        let (reply, socket) = oneshot::channel();
        let wanted = Wanted { namespace: namespace.clone(), ipv6: address.is_ipv6(), reply };
        let gone = || io::Error::other("the thread that makes sockets has ended");
        self.wanted.send(wanted).map_err(|_| gone())?;
        socket.await.map_err(|_| gone())??.connect(SocketAddr::new(address, port)).await
    }
}

fn socket(ipv6: bool) -> io::Result<TcpSocket> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let socket = netns::socket(family, libc::SOCK_STREAM)?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_comes_first_and_nothing_twice() {
        let hosts = |reach: Reach| reach.hosts.join(" ");
        assert_eq!(hosts(Reach::host("127.0.0.1")), "127.0.0.1");
        assert_eq!(hosts(Reach::host("node-1")), "127.0.0.1 node-1");
        assert_eq!(hosts(Reach::host("fd00::1")), "::1 fd00::1");
        let namespace = File::open("/proc/self/ns/net").unwrap();
        assert_eq!(hosts(Reach::inside(namespace, &[[10, 9, 0, 2].into()])), "127.0.0.1 10.9.0.2");
    }
}
