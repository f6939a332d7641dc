//! Which addresses of the network may be asked for a feed, and the look-up of names that keeps to them.
//!
//! An address in a feed list may come from anybody, and this program stands inside somebody's network: asked for
//! `http://169.254.169.254/…` or for a name that leads there, it would hand out what only insiders may read. So what
//! counts is the address that is connected to, of each redirect: the HTTP client gets its addresses from
//! [`PublicNames`], and those that stand in a URL as digits, for which it asks nobody, are looked at before
//! ([`Networks::check_host`]). There is no time between the check and the connection in which a name could change.
//!
//! *Not here:* what a proxy connects to. It looks names up itself; see [`super::proxy`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Networks of IPv4 that are not of the public internet, with what they are (RFC 6890 and its registry).
const PRIVATE_V4: [(Ipv4Addr, u8, &str); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8, "an address of this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "an address shared by a provider"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a reserved address"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "an address for documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a relay address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "an address for measurements"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "an address for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "an address for documentation"),
    // In a public network, and answers with secrets only to the machines of its cloud.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a metadata address"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

/// The part of IPv6 that is given out for the public internet; all else is local, multicast or reserved.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is in it and not public all the same.
const PRIVATE_V6: [(Ipv6Addr, u8, &str); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "a reserved address"),
    (Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 0), 32, "an address for documentation"),
    (Ipv6Addr::new(0x3FFF, 0, 0, 0, 0, 0, 0, 0), 20, "an address for documentation"),
];

/// Prefix of addresses that a translator leads to the IPv4 address in their last 32 bits (RFC 6052).
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, 0, 0), 96);
/// Prefix of 6to4 addresses, which hold an IPv4 address behind it.
const SIX_TO_FOUR: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

/// An address that only who is inside may ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its host is at {address}, {kind}")]
pub struct PrivateAddress {
    /// The address.
    pub address: IpAddr,
    /// What it is, with its article.
    pub kind: &'static str,
}

/// A network: the addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// The networks that may be asked, beside the public internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => is_within_v4(address, network, self.prefix_bits),
            (IpAddr::V6(network), IpAddr::V6(address)) => is_within_v6(address, network, self.prefix_bits),
            _ => false,
        }
    }
}

/// `10.0.0.0/8`, `fd00::/8`, or a single address.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Ok(bits_max), str::parse).map_err(|_| ())?;
        if prefix_bits > bits_max { Err(()) } else { Ok(Self { address, prefix_bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl Networks {
    /// The public internet, and these.
    pub fn with(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// # Errors
    /// [`PrivateAddress`] says what the address is.
    pub fn check(&self, address: IpAddr) -> Result<(), PrivateAddress> {
        // What is mapped is connected to as IPv4.
        let address = address.to_canonical();
        match private_kind(address) {
            Some(kind) if !self.0.iter().any(|network| network.holds(address)) => Err(PrivateAddress { address, kind }),
            _ => Ok(()),
        }
    }

    /// Checks a host that stands in the URL as an address; a name passes, its look-up is checked.
    pub(super) fn check_host(&self, url: &Url) -> Result<(), PrivateAddress> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }
}

fn private_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => private_kind_v4(address),
        IpAddr::V6(address) => private_kind_v6(address),
    }
}

fn private_kind_v4(address: Ipv4Addr) -> Option<&'static str> {
    PRIVATE_V4.iter().find(|(network, bits, _)| is_within_v4(address, *network, *bits)).map(|(.., kind)| *kind)
}

fn private_kind_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [.., a, b] = address.segments();
    let [_, c, d, ..] = address.segments();
    if is_within_v6(address, NAT64.0, NAT64.1) {
        return private_kind_v4(joined(a, b));
    }
    if is_within_v6(address, SIX_TO_FOUR.0, SIX_TO_FOUR.1) {
        return private_kind_v4(joined(c, d));
    }
    if !is_within_v6(address, PUBLIC_V6.0, PUBLIC_V6.1) {
        return Some(if address.is_loopback() {
            "a loopback address"
        } else if address.is_multicast() {
            "a multicast address"
        } else if address.is_unicast_link_local() {
            "a link-local address"
        } else if address.is_unique_local() {
            "a private address"
        } else {
            "a reserved address"
        });
    }
    PRIVATE_V6.iter().find(|(network, bits, _)| is_within_v6(address, *network, *bits)).map(|(.., kind)| *kind)
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

fn is_within_v4(address: Ipv4Addr, network: Ipv4Addr, prefix_bits: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
    (u32::from(address) ^ u32::from(network)) & mask == 0
}

fn is_within_v6(address: Ipv6Addr, network: Ipv6Addr, prefix_bits: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
    (u128::from(address) ^ u128::from(network)) & mask == 0
}

/// The names of the system.
#[derive(Debug)]
pub(super) struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Names, without the addresses that may not be asked. A name that has no other is not found, with [`PrivateAddress`] as
/// the reason.
pub(super) struct PublicNames {
    pub(super) names: Arc<dyn Resolve>,
    pub(super) networks: Networks,
    /// Hosts whose address does not matter: the proxies, which are in the network and are no feed.
    pub(super) exempt: Vec<String>,
}

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let is_exempt = self.exempt.iter().any(|host| host.eq_ignore_ascii_case(name.as_str()));
        let (names, networks) = (self.names.clone(), self.networks.clone());
        Box::pin(async move {
            let found = names.resolve(name).await?;
            if is_exempt {
                return Ok(found);
            }
            let mut public: Vec<SocketAddr> = Vec::new();
            let mut refused = None;
            for address in found {
                match networks.check(address.ip()) {
                    Ok(()) => public.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if public.is_empty() => Err(error.into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn addresses_of_the_public_internet_may_be_asked() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert_eq!(Networks::default().check(address(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn all_others_are_refused_with_what_they_are() {
        for (text, kind) in [
            ("127.0.0.1", "a loopback address"),
            ("127.255.255.255", "a loopback address"),
            ("0.0.0.0", "an address of this network"),
            ("10.1.2.3", "a private address"),
            ("172.16.0.1", "a private address"),
            ("172.31.255.255", "a private address"),
            ("192.168.1.1", "a private address"),
            ("169.254.169.254", "a link-local address"),
            ("100.64.0.1", "an address shared by a provider"),
            ("100.100.100.200", "an address shared by a provider"),
            ("168.63.129.16", "a metadata address"),
            ("192.0.0.192", "a reserved address"),
            ("198.19.0.1", "an address for measurements"),
            ("224.0.0.1", "a multicast address"),
            ("255.255.255.255", "a reserved address"),
            ("::1", "a loopback address"),
            ("::", "a reserved address"),
            ("::127.0.0.1", "a reserved address"),
            ("::ffff:127.0.0.1", "a loopback address"),
            ("::ffff:169.254.169.254", "a link-local address"),
            ("fe80::1", "a link-local address"),
            ("fd00:ec2::254", "a private address"),
            ("ff02::1", "a multicast address"),
            ("64:ff9b::a9fe:a9fe", "a link-local address"),
            ("64:ff9b:1::1", "a reserved address"),
            ("2002:7f00:1::1", "a loopback address"),
            ("2001::1", "a reserved address"),
            ("2001:db8::1", "an address for documentation"),
        ] {
            let refused = Networks::default().check(address(text)).expect_err(text);
            assert_eq!(refused.kind, kind, "{text}");
        }
    }

    #[test]
    fn an_address_that_a_url_hides_is_met_all_the_same() {
        for text in
            ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::ffff:7f00:1]/", "http://0/"]
        {
            let url: Url = text.parse().expect(text);
            Networks::default().check_host(&url).expect_err(text);
        }
    }

    #[test]
    fn a_network_that_is_named_may_be_asked_and_no_more() {
        let networks = ["10.1.0.0/16", "fd00:1::/32", "192.168.7.7"].map(|text| text.parse().expect(text));
        let networks = Networks::with(networks.to_vec());
        for (text, is_allowed) in [
            ("10.1.255.255", true),
            ("::ffff:10.1.0.1", true),
            ("10.2.0.0", false),
            ("fd00:1:ffff::1", true),
            ("fd00:2::1", false),
            ("192.168.7.7", true),
            ("192.168.7.8", false),
        ] {
            assert_eq!(networks.check(address(text)).is_ok(), is_allowed, "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "local"] {
            text.parse::<Network>().expect_err(text);
        }
        assert_eq!("10.0.0.0/0".parse::<Network>().map(|all| all.holds(address("1.2.3.4"))), Ok(true));
    }
}
