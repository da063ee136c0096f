//! Port forwards that come and go while the guest runs.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::support::http;
use crate::support::linux::{Linux, port};
use crate::support::sandbox::PATIENCE;

#[test]
fn a_page_comes_through_a_forward_that_was_added_at_run_time() {
    let vm = Linux::boot::<&str>([]);
    let got: u16 = vm.ctl(["port-add", "0:80"]).parse().unwrap();
    let page = http::send(got, "GET", "/", "").unwrap().answer(PATIENCE).unwrap();
    assert!(page.contains("vmrun guest"), "{page}");

    let udp: u16 = vm.ctl(["port-add", "0:5353/udp"]).parse().unwrap();
    let forwards = vm.list("port-list");
    assert_eq!(forwards.len(), 3, "{forwards:?}");
    let find = |wanted| forwards.iter().find(|forward| port(forward) == wanted).unwrap();
    assert_eq!(find(got)["protocol"], "tcp");
    assert_eq!((&find(udp)["protocol"], &find(udp)["guest_port"]), (&"udp".into(), &5353.into()));
    let usernet = vm.ctl(["hmp", "info", "usernet"]);
    assert!(usernet.contains("UDP[HOST_FORWARD]") && usernet.contains(&udp.to_string()), "{usernet}");

    // each refusal says what is in the way, and changes nothing
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let busy = taken.local_addr().unwrap().port();
    vm.try_ctl(["port-add", &format!("{busy}:80")]).fails(4, &[&busy.to_string(), "in use"]);
    vm.try_ctl(["port-add", &format!("{got}:81")]).fails(4, &[&got.to_string(), "already"]);
    vm.try_ctl(["port-remove", "1"]).fails(4, &["forward '1'"]);
    assert_eq!(vm.list("port-list").len(), 3);

    vm.ctl(["port-remove", &format!("127.0.0.1:{got}:80/tcp")]);
    vm.ctl(["port-remove", &udp.to_string()]);
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, got)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(vm.list("port-list").len(), 1);
    assert_eq!(vm.run("echo still here"), "still here");
    vm.quit();
}
