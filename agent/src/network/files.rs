//! The files by which programs of a container find names: `/etc/hosts` and `/etc/resolv.conf`. Text in, text out.

use std::net::IpAddr;

use divvy_proto::Hostname;

use super::Resolver;

/// Loopback's names, and the container's own for each of its addresses.
pub(crate) fn hosts(hostname: &Hostname, addresses: &[IpAddr]) -> String {
    let mut text =
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_owned();
    // Without an address it still is itself, as Debian has it.
    let itself = [IpAddr::from([127, 0, 1, 1])];
    for address in if addresses.is_empty() { &itself } else { addresses } {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

/// What the network says, or else the host's resolvers, without those on the host's loopback: a container with a network of its
/// own does not reach them.
pub(crate) fn resolv_conf(resolver: &Resolver, host: &str) -> String {
    if resolver.nameservers.is_empty() {
        let reachable = host.lines().filter(|line| !is_loopback(line));
        return reachable.flat_map(|line| [line, "\n"]).collect();
    }
    let mut lines: Vec<_> =
        resolver.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    lines.extend(
        resolver.domain.iter().filter(|domain| !domain.is_empty()).map(|domain| format!("domain {domain}\n")),
    );
    for (key, words) in [("search", &resolver.search), ("options", &resolver.options)] {
        if !words.is_empty() {
            lines.push(format!("{key} {}\n", words.join(" ")));
        }
    }
    lines.concat()
}

fn is_loopback(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let server = (words.next() == Some("nameserver")).then(|| words.next()).flatten();
    let address = server.and_then(|server| server.split('%').next()?.parse::<IpAddr>().ok());
    address.is_some_and(|address| address.is_loopback())
}
