//! What the service does, one file per verb. Each loads, decides by the nouns, saves in at most one
//! write transaction, and only then has effects.
//!
//! | flow | when |
//! | --- | --- |
//! | [`begin_service`] | the service starts: whose the database is, and by which policy it judges |
//! | [`describe_enrollment`] | somebody wants to know what an enrollment would do |
//! | [`deliver_profile`] | a Mac may enrol: its profile is asked for |
//! | [`issue_by_acme`] | it asks for an attested identity |
//! | [`offer_profile`] | the same by the enrollment page, in two requests |
//! | [`issue_by_scep`] | it asks for an identity |
//! | [`poll_by_scep`] | it asks what became of that |
//! | [`renew_by_scep`] | it renews its identity, the old one signing for the new |
//! | [`import_fleet`] | the Macs of a former server are adopted |
//! | [`identify`] | first line of every message of a Mac |
//! | [`check_in`] | it joins, changes its address, leaves |
//! | [`connect`] | it asks for work and brings answers; [`conclude`] judges them |
//! | [`judge_anew`] | another policy was switched on |
//! | [`tell_of_end`] | a verdict that nothing renews ends |
//! | [`take_over`] | Apple proved its serial number: who holds it is settled |
//! | [`wake`] | it is to be woken |
//! | [`watch_clock`] | the clock is looked at, and not believed where it cannot be |
//! | [`export_traces`] | spans of posture rounds leave for a collector |
//! | [`watch_standstill`] | somebody must notice that nothing moves |
//! | [`sweep`] | what is due or overdue |
//! | [`verify_now`] | the coordinator wants a fresh answer; [`ask_to_verify`] leaves the wish of an operator to whichever server runs |
//! | [`relay_command`] | an old coordinator asks as it asked MicroMDM; [`relay_answer`] tells it |
//! | [`read_posture`] | the coordinator reads what is believed |
//! | [`list_postures`] | it lists what is believed of all Macs, before it follows |
//! | [`list_devices`] | an operator looks for Macs; [`show_device`] tells the story of one |
//! | [`bind_provider`] | a provider session begins or ends; [`join_session`] finds the Mac it belongs to |
//! | [`challenge`] | the holder of a session's key is asked whether it is still there |
//! | [`read_binding`] | the coordinator asks whether it may route to a session; [`answers`] remembers |
//! | [`read_trust_headers`] | the coordinator says in its reply which provider made it |
//! | [`publish_feed`] | anybody reads the public feed |
//! | [`approve_binding`] | an operator says that a session belongs to its Mac |
//! | [`read_audit`] | an auditor asks who changed what, and whether that is all |
//! | [`read_status`] | an operator, or a load balancer, asks how the service is |
//! | [`follow_events`] | the coordinator follows what happens |
//! | [`webhook`] | an operator has a receiver told of events; [`deliver_webhooks`] tells it, as `deliver` does whatever is sent |
//! | [`receiver`] | an operator lets somebody have a stream of shared signals; [`grant_access`] gives it tokens |
//! | [`manage_stream`] | a receiver sets its stream up, changes it, asks whether it works |
//! | [`transmit_signals`] | what happened becomes tokens; [`push_signals`] delivers them, [`poll_signals`] hands them out |
//! | [`follow_progress`] | the owner reads how far the enrolment is |
//! | [`release`] | a release of the provider software is registered or withdrawn |
//! | [`resume`] | nobody served Macs for a while |
//! | [`remove_old`] | what was kept long enough goes |
//! | [`refuse`] | something was refused: counted, and kept for who asks why; [`limits`] counts by ticket and serial number |
//! | [`name_mac`] | somebody names a Mac in words of their own |
//! | [`revoke`] | an operator withdraws trust in a Mac, or gives it back |
//! | [`rotate_push_certificate`] | the yearly push certificate; [`request_push_certificate`] asks for it, [`try_push_certificate`] has chosen Macs try it first, [`watch_push_certificates`] tells of its end, [`approve_push_certificate`] waits for a second person where one is asked for, [`read_push_certificates`] shows what there is, [`discard_push_certificate`] throws away what is not wanted; [`push_certificate_refusal`] says for programs why something is not done |
//! | [`rotate_result_key`] | the keys that results are signed by |
//! | [`publish_evidence`] | anybody wants to check it all |
//! | [`append_to_log`] | something is said to all; [`tell_log`] follows what there is to say, [`witness_log`] shows it to witnesses |
//! | [`draw_beacon`] | nonces are made from heads of the log: the newest is drawn |
//! | [`replace_authority`] | the keys of the service's own authority, [`authorities`], are made and followed by others |
//! | [`hand_over_master_key`] | everything sealed is to be under another master key; servers follow |
//! | [`service_secret`] | the service starts: what it keeps secret for ever is read, or drawn |
//! | [`sign_result`] | somebody wants a result that needs no trust in whoever brings it |
//! | [`check_policy`] | what another policy would change is asked before it is switched on |
//! | [`back_up`] | everything is written into one sealed file; [`restore_backup`] makes what was restored fit to go on with |
//! | [`authorize`] | who may use the internal API; [`identify_bearer`] says who shows a token of the OpenID provider, [`follow_issuer`] fetches its keys |

pub mod answers;
pub mod append_to_log;
pub mod approve_binding;
pub mod approve_push_certificate;
pub mod ask_to_verify;
pub mod authorities;
pub mod authorize;
pub mod back_up;
pub mod begin_service;
pub mod bind_provider;
pub mod challenge;
pub mod check_in;
pub mod check_policy;
pub mod conclude;
#[cfg(test)]
mod conclude_test;
pub mod connect;
mod deliver;
pub mod deliver_profile;
pub mod deliver_webhooks;
pub mod describe_enrollment;
pub mod discard_push_certificate;
pub mod draw_beacon;
pub mod export_traces;
pub mod follow_events;
pub mod follow_issuer;
pub mod follow_progress;
pub mod grant_access;
pub mod hand_over_master_key;
pub mod identify;
pub mod identify_bearer;
pub mod import_fleet;
pub mod issue_by_acme;
pub mod issue_by_scep;
mod issue_identity;
pub mod join_session;
pub mod judge_anew;
pub mod limits;
pub mod list_devices;
pub mod list_postures;
pub mod manage_stream;
pub mod name_mac;
pub mod offer_profile;
pub mod poll_by_scep;
pub mod poll_signals;
pub mod publish_evidence;
pub mod publish_feed;
pub mod push_certificate_refusal;
pub mod push_signals;
pub mod read_audit;
pub mod read_binding;
pub mod read_posture;
pub mod read_push_certificates;
pub mod read_status;
pub mod read_trust_headers;
pub mod receiver;
pub mod refuse;
pub mod relay_answer;
pub mod relay_command;
pub mod release;
pub mod remove_old;
pub mod renew_by_scep;
pub mod replace_authority;
pub mod request_push_certificate;
pub mod restore_backup;
pub mod resume;
pub mod revoke;
pub mod rotate_push_certificate;
pub mod rotate_result_key;
pub mod service_secret;
pub mod show_device;
pub mod sign_result;
pub mod sweep;
pub mod take_over;
pub mod tell_log;
pub mod tell_of_end;
pub mod transmit_signals;
pub mod try_push_certificate;
pub mod verify_now;
pub mod wake;
pub mod watch_clock;
pub mod watch_push_certificates;
pub mod watch_standstill;
pub mod webhook;
pub mod witness_log;

use std::sync::Arc;
use std::time::Duration;

use crate::acme::NonceKey;
use crate::apns::Apns;
use crate::attestation::Anchors;
use crate::enrollment::Protocol;
use crate::enrollment::profile::Constants;
use crate::entropy::Entropy;
use crate::keys::{BearerKey, HandoverFault, MasterSeal};
use crate::outbound::Outbound;
use crate::pki::{KnownIntermediates, PkiError, TrustAnchors};
use crate::posture::policy::Policy;
use crate::push::approval::Approval;
use crate::secret::Secret;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::traces::Traces;
use crate::time::Clock;
use crate::time::watch::{ClockWatch, Trouble};
use crate::verification::agenda::Rules;

/// What flows need. Made once by `app`.
#[derive(Debug)]
pub struct Context {
    pub store: Store,
    pub apns: Apns,
    pub authorities: authorities::Authorities,
    pub clock: Arc<dyn Clock>,
    pub clock_watch: ClockWatch,
    /// Whether everything moves.
    pub watched: watch_standstill::Watched,
    pub entropy: Arc<dyn Entropy>,
    pub sealer: Arc<MasterSeal>,
    pub policy: Arc<Policy>,
    pub anchors: Anchors,
    pub intermediates: KnownIntermediates,
    /// Under which the nonces of ACME requests are minted, on every node alike.
    pub acme_nonces: NonceKey,
    pub settings: Settings,
    pub metrics: Arc<Metrics>,
    /// Where spans of posture rounds are put; `None` unless a collector takes them.
    pub traces: Option<Traces>,
    pub wakeups: wake::Wakeups,
    pub refusals: refuse::Refusals,
    pub answers: answers::Answers,
    pub limits: limits::Limits,
    pub signing: sign_result::Signing,
    /// What the subjects of results are made with.
    pub subject_secret: Secret<[u8; 32]>,
    pub outlet: follow_events::Outlet,
    /// `None`: nothing is published in a log.
    pub log: Option<append_to_log::Log>,
    pub bundles: publish_evidence::Bundles,
    pub outbound: Outbound,
    /// None where no signals are shared.
    pub signals: Option<transmit_signals::Signals>,
}

/// Settings that flows read.
#[derive(Debug)]
pub struct Settings {
    /// The canonical base URL; also the server's name in nonces.
    pub server_id: String,
    pub profile: Constants,
    /// The identity of a profile where nothing speaks for another.
    pub identity: Protocol,
    pub identity_lifetime: Duration,
    /// How long the first attestation waits for a provider key to name.
    pub attestation_hold: Duration,
    /// How long answers of Macs are kept, and what was believed then.
    pub kept: Duration,
    /// How long a Mac may take to answer.
    pub patience: Duration,
    /// By what the agendas of Macs are kept.
    pub rules: Arc<Rules>,
    /// Authorities of former servers whose identities may say Authenticate.
    pub adopted_cas: Option<TrustAnchors>,
    /// Whoever presents it may register releases, and nothing else.
    pub release_key: Option<BearerKey>,
    /// Who is known on the internal listener by a certificate.
    pub clients: authorize::Clients,
    /// The OpenID provider whose tokens let somebody in, if there is one.
    pub issuer: Option<identify_bearer::Issuer>,
    /// Pushes go to Apple's own service, so its certificates must be Apple's, too.
    pub apples_apns: bool,
    /// Whether another person must confirm that a push certificate comes into use.
    pub approval: Approval,
    /// The MicroMDM interface of an old coordinator; `None`: it is off.
    pub relay: Option<relay_command::Relaying>,
}

/// The service could not do its work. Nobody outside is to blame.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a certificate or message of ours could not be made")]
    Pki(#[from] PkiError),
    #[error("the profile template cannot be used")]
    Profile(#[from] crate::enrollment::profile::Unusable),
    #[error("no push certificate is installed: run `attestd push-cert install`")]
    NoPushCertificate,
    #[error("too many profiles were made for this serial number within an hour")]
    TooManyProfiles,
    #[error("{0}")]
    Clock(Trouble),
    #[error("no key signs results: `attestd keys list` shows them")]
    NoSigningKey,
    #[error("a result cannot be signed")]
    Unsigned(#[source] crate::publication::jws::Unsigned),
    #[error("nothing can be added to the log")]
    NotLogged,
    #[error("a key could not be made")]
    KeyNotMade,
    #[error(transparent)]
    Handover(#[from] HandoverFault),
    #[error("{0}")]
    Inconsistent(&'static str),
}

impl Failure {
    /// Writes the failure and its causes to the log: once, where it ends.
    pub fn log(&self) {
        let mut causes = String::new();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            causes.push_str(": ");
            causes.push_str(&inner.to_string());
            cause = inner.source();
        }
        tracing::error!("{self}{causes}");
    }

    /// Whether the same request may succeed later without anybody's doing here.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Unavailable(_) | StoreError::Conflict)
                | Self::NoPushCertificate
                | Self::TooManyProfiles
                | Self::NotLogged
                | Self::Clock(_)
                | Self::NoSigningKey
        )
    }
}
