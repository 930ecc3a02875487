//! Journeys, named after the flow they walk: real sockets, the simulated world, both databases.

/// A journey that runs on both databases, as `name::on_sqlite` and `name::on_postgresql`.
macro_rules! journey {
    ($(#[$doc:meta])* async fn $name:ident($backend:ident: Backend) $body:block) => {
        $(#[$doc])*
        async fn $name($backend: crate::harness::scene::Backend) $body

        mod $name {
            use crate::harness::scene::Backend;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                super::$name(Backend::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgresql() {
                super::$name(Backend::PostgreSql).await;
            }
        }
    };
}

mod administer_push_certificates;
mod approve_push_certificate;
mod ask_to_verify;
mod authorize;
mod back_up;
mod bad_input;
mod bind_provider;
mod boot_continuity;
mod challenge;
pub mod check_in;
mod check_policy;
mod deliver_profile;
mod deliver_webhooks;
mod describe;
mod doctor;
mod draw_beacon;
mod enroll_signed;
mod export_traces;
mod follow_events;
mod hand_over_master_key;
mod identify;
mod identify_bearer;
mod identify_by_certificate;
mod import_fleet;
pub mod issue_by_acme;
pub mod issue_by_scep;
mod judge_anew;
mod keep_secrets;

mod posture_round;

mod connect;
mod coordinate;

mod init;
mod publish_evidence;
mod publish_feed;
mod publish_log;
mod read_audit;
mod read_posture;
mod read_trust_headers;
mod relay_command;
mod release;
mod remove_old;
mod renew_by_scep;
mod replace_authority;
mod request_push_certificate;
mod restart;
mod restore_backup;
mod resume;
mod revoke;
mod rotate_push_certificate;
mod show_device;
pub mod sign_result;
mod sweep;
mod take_over;
mod tell_of_end;
mod transmit_signals;
mod verify_now;
mod verify_reply;
mod wake;
mod watch_clock;
mod watch_push_certificates;
mod watch_standstill;
mod witness_log;
