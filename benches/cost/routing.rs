//! The question asked thousands of times a second: may requests be routed to this session? Against an
//! empty handler of the same listener.

use std::net::SocketAddr;

use attestd_sim::{Clock, Provider};

use super::fleet::{Fleet, Prepared};
use super::report::Report;
use super::server::{Server, per};

/// Connections that send at the same time.
const AT_ONCE: usize = 64;
const QUESTIONS: usize = 60_000;
const ROUNDS: usize = 5;
/// 70 % of the rate of an empty handler.
const GOAL: f64 = 1.0 / 0.7;

pub async fn run(report: &mut Report, server: &Server, fleet: &Fleet) {
    eprintln!("sessions …");
    let clock = Clock::system();
    let mut sessions = Vec::new();
    for serial in fleet.serials() {
        let provider = Provider::new(serial, &clock).expect("a provider");
        let request = provider.binding_request(None).expect("a request");
        let path = format!("/internal/v1/bindings/session-{serial}");
        let bound = server.put(&path, &request).await;
        let device_id = bound["device_id"].as_str().expect("a Mac").to_owned();
        sessions.push((path, format!("/internal/v1/devices/{device_id}/posture")));
    }
    let ask = |path: &str| Prepared::plain(question(path, &server.token));
    let many =
        |of: &dyn Fn(usize) -> Prepared| -> Vec<Prepared> { (0..QUESTIONS).map(of).collect() };
    let empty = many(&|_| ask("/healthz"));
    let routable = many(&|number| ask(&sessions[number % sessions.len()].0));
    let posture = many(&|number| ask(&sessions[number % sessions.len()].1));
    let internal: SocketAddr = server
        .internal
        .replace("http://", "")
        .parse()
        .expect("an address");

    eprintln!("questions …");
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (requests, costs) in [&empty, &routable, &posture].into_iter().zip(&mut costs) {
            let (cost, _) = server.cost(fleet.send(internal, requests, AT_ONCE)).await;
            // The first round fills memory.
            if round > 0 {
                costs.push(per(cost, QUESTIONS));
            }
        }
    }
    let [empty, routable, posture] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    });
    report.figure("an empty handler of the internal listener (H)", empty);
    report.held("may this session be routed to?", routable, empty, "H", GOAL);
    report.held("a Mac's posture, whole", posture, empty, "H", GOAL);
}

fn question(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
        .into()
}
