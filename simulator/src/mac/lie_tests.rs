//! Each lie, told where it should be and nowhere else (apple-protocol 12.14).

use plist::Value;

use super::tests::{chain_in, enrolled, property, scene};
use super::{Lie, Mac, MacSpec};
use crate::apple::oid;
use crate::der;
use crate::rehearsal::Rehearsal;
use crate::world::World;

async fn liar(lie: Lie) -> (World, Rehearsal, Mac) {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap().lying(lie), &world, &server).await;
    (world, server, mac)
}

fn own_certificate(mac: &Mac) -> Option<Vec<u8>> {
    Some(mac.identity()?.certificate.to_der().unwrap())
}

#[tokio::test]
async fn a_mac_with_sip_off_denies_it_and_apple_tells() {
    let (_world, server, mac) = liar(Lie::SipOffButClaimsOn).await;
    server.ask("S", "SecurityInfo");
    server.ask_attestation("A", Value::Data(vec![3; 32]));
    mac.connect().await.unwrap();
    let seen = server.seen("/mdm/connect");
    let claims = seen[1].plist();
    let claims = claims
        .get("SecurityInfo")
        .and_then(Value::as_dictionary)
        .unwrap();
    let sip = claims.get("SystemIntegrityProtectionEnabled");
    assert_eq!(sip, Some(&Value::Boolean(true)));
    let leaf = &chain_in(&seen[2])[0];
    assert_eq!(property(leaf, oid::SIP), Some(der::small_integer(1)));
    let policy = property(leaf, oid::SECURE_BOOT);
    assert_eq!(policy, Some(b"Permissive Security".to_vec()));
}

#[tokio::test]
async fn a_relay_answers_with_another_macs_chain_for_this_nonce() {
    let victim = MacSpec::random().unwrap();
    let lie = Lie::RelaysAnotherMac(Box::new(victim.attested_state()));
    let (_world, server, mac) = liar(lie).await;
    server.ask_attestation("A", Value::Data(vec![3; 32]));
    mac.connect().await.unwrap();
    let leaf = chain_in(&server.seen("/mdm/connect").pop().unwrap()).remove(0);
    let serial = property(&leaf, oid::SERIAL_NUMBER);
    assert_eq!(serial, Some(victim.serial.into_bytes()));
    assert_eq!(property(&leaf, oid::FRESHNESS), Some(vec![3; 32]));
}

#[tokio::test]
async fn an_impostor_signs_replies_and_only_replies_as_another() {
    let (_world, server, mac) = liar(Lie::SignsWithWrongIdentity(None)).await;
    server.ask("S", "SecurityInfo");
    mac.connect().await.unwrap();
    let signers: Vec<_> = server
        .seen("/mdm/connect")
        .into_iter()
        .map(|one| one.signer)
        .collect();
    let own = own_certificate(&mac);
    assert!(signers[0] == own && signers[1].is_some() && signers[1] != own);
}

#[tokio::test]
async fn an_usurper_names_another_udid_under_its_own_signature() {
    let (_world, server, mac) = liar(Lie::ClaimsAnotherUdid("ANOTHER".into())).await;
    server.ask("S", "SecurityInfo");
    mac.connect().await.unwrap();
    for message in server.seen("/mdm/connect") {
        assert_eq!(
            (message.text("UDID").as_str(), &message.signer),
            ("ANOTHER", &own_certificate(&mac))
        );
    }
    assert_eq!(server.seen("/mdm/checkin")[0].text("UDID"), mac.udid());
}

#[tokio::test]
async fn an_old_chain_is_replayed_even_after_re_enrollment() {
    let (_world, server, mac) = liar(Lie::ReplaysOldChain).await;
    for nonce in [1, 2] {
        server.ask_attestation("A", Value::Data(vec![nonce; 32]));
        mac.connect().await.unwrap();
        mac.enroll(&server.url).await.unwrap();
    }
    let told = mac
        .exchanges()
        .into_iter()
        .map(|one| one.attestation.unwrap());
    let [(first, true), (second, false)] = &told.collect::<Vec<_>>()[..] else {
        panic!("the second chain must not be new")
    };
    assert_eq!(first, second);
}

#[tokio::test]
async fn an_old_result_is_replayed_byte_for_byte() {
    let (_world, server, mac) = liar(Lie::ReplaysOldResult).await;
    server.ask("first", "SecurityInfo");
    server.ask("second", "SecurityInfo");
    mac.connect().await.unwrap();
    let seen = server.seen("/mdm/connect");
    assert_eq!(seen[1].body, seen[2].body);
    let status = mac.replay(&mac.exchanges()[0]).await.unwrap().status;
    assert_eq!(status, 200);
    assert_eq!(server.seen("/mdm/connect")[3].body, seen[1].body);
}
