//! Counters of network cards. QEMU (7.2 to 11.1) has none, so they come from the host's interface behind a tap device, or from the
//! guest through its agent.

use std::time::Duration;

use qapi::qga::{GuestNetworkInterface, guest_network_get_interfaces};

use crate::host::tap::{self, Counters, HostPaths};
use crate::spec::Networking;

use crate::vm::error::ChangeError;
use crate::vm::handle::Handle;
use crate::vm::state::inventory::{Entry, NicFacts};
use crate::vm::state::status::Status;

/// How long the agent may take, which delays the whole sample.
const AGENT_PATIENCE: Duration = Duration::from_secs(2);

/// The source of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The host's interface.
    Host,
    /// The guest, through its agent: counted since its driver was loaded.
    Agent,
}

/// The counters of a card, from the guest's point of view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicStats {
    /// Its id.
    pub id: String,
    /// The counters and their source, or why there are none.
    pub counted: Result<(Source, Counters), String>,
}

impl Handle {
    pub(super) async fn nic_stats(&self, status: &Status) -> Vec<NicStats> {
        let nics: Vec<(&Entry, &NicFacts)> = status.nics().collect();
        // the agent is asked once, and only if needed
        let mut guest: Option<Result<Vec<GuestNetworkInterface>, String>> = None;
        let mut all = Vec::with_capacity(nics.len());
        for (entry, nic) in nics {
            let counted = match of_host(nic) {
                Some(counters) => Ok((Source::Host, counters)),
                None => {
                    if guest.is_none() {
                        guest = Some(self.ask_interfaces().await);
                    }
                    match guest.as_ref() {
                        Some(Ok(interfaces)) => {
                            of_guest(interfaces, nic).map(|counters| (Source::Agent, counters))
                        }
                        Some(Err(why)) => Err(why.clone()),
                        None => Err(String::new()),
                    }
                }
            };
            let counted = counted.map_err(|why| reason(nic, &why));
            all.push(NicStats { id: entry.id.to_string(), counted });
        }
        all
    }

    async fn ask_interfaces(&self) -> Result<Vec<GuestNetworkInterface>, String> {
        let ask = self.in_guest(
            // an interface that the agent does not report has no counters
            Duration::ZERO,
            self.call_agent(guest_network_get_interfaces {}),
        );
        match tokio::time::timeout(AGENT_PATIENCE, ask).await {
            Ok(answer) => answer.map_err(|error: ChangeError| error.message),
            Err(_) => Err(format!("the guest agent did not answer within {} s", AGENT_PATIENCE.as_secs())),
        }
    }
}

fn reason(nic: &NicFacts, why: &str) -> String {
    match &nic.network {
        Some(Networking::User(_)) | None => format!("QEMU does not count, and {why}"),
        Some(_) => format!("the host's interface is not known, and {why}"),
    }
}

/// The host's counters, swapped: what the host has sent is what the guest has received.
fn of_host(nic: &NicFacts) -> Option<Counters> {
    let host = tap::counters(nic.interface.as_ref()?, &HostPaths::default()).ok()?;
    Some(Counters {
        rx_bytes: host.tx_bytes,
        rx_packets: host.tx_packets,
        rx_errors: host.tx_errors,
        rx_dropped: host.tx_dropped,
        tx_bytes: host.rx_bytes,
        tx_packets: host.rx_packets,
        tx_errors: host.rx_errors,
        tx_dropped: host.rx_dropped,
    })
}

/// The counters of the guest's interface with the card's address.
fn of_guest(interfaces: &[GuestNetworkInterface], nic: &NicFacts) -> Result<Counters, String> {
    let address = nic.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let same = |interface: &&GuestNetworkInterface| {
        interface.hardware_address.as_ref().is_some_and(|mac| mac.eq_ignore_ascii_case(&address))
    };
    let interface = interfaces.iter().find(same).ok_or("the guest has no interface with its address")?;
    let stats = interface.statistics.as_ref().ok_or("the guest agent does not tell counters")?;
    Ok(Counters {
        rx_bytes: stats.rx_bytes,
        rx_packets: stats.rx_packets,
        rx_errors: stats.rx_errs,
        rx_dropped: stats.rx_dropped,
        tx_bytes: stats.tx_bytes,
        tx_packets: stats.tx_packets,
        tx_errors: stats.tx_errs,
        tx_dropped: stats.tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of_guest(interfaces: &Value, nic: &NicFacts) -> Result<Counters, String> {
        super::of_guest(&serde_json::from_value::<Vec<_>>(interfaces.clone()).unwrap(), nic)
    }

    #[test]
    fn a_card_is_found_by_its_address() {
        let mac = "52:54:00:00:00:0a".parse().unwrap();
        let nic = NicFacts::new("nic1", Networking::default(), mac);
        let counters = json!({
            "rx-bytes": 1, "rx-packets": 2, "rx-errs": 3, "rx-dropped": 4,
            "tx-bytes": 5, "tx-packets": 6, "tx-errs": 7, "tx-dropped": 8,
        });
        let lo = json!({ "name": "lo" });
        let eth = json!({ "name": "eth0", "hardware-address": "52:54:00:00:00:0A", "statistics": counters });
        let found = of_guest(&json!([lo, eth]), &nic).unwrap();
        assert_eq!((found.rx_bytes, found.rx_dropped, found.tx_bytes, found.tx_dropped), (1, 4, 5, 8));
        let missing = of_guest(&json!([lo]), &nic).unwrap_err();
        assert_eq!(
            reason(&nic, &missing),
            "QEMU does not count, and the guest has no interface with its address"
        );
        let old = json!([{ "name": "eth0", "hardware-address": "52:54:00:00:00:0a" }]);
        assert_eq!(of_guest(&old, &nic).unwrap_err(), "the guest agent does not tell counters");
    }
}
