//! What can be done.

use std::fmt;

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// What somebody did. The words are kept for ever: one that was used never means anything else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verb {
            $($(#[$doc])* $name,)*
        }

        impl Verb {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word that is kept.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

verbs! {
    /// A database came to belong to a server.
    ServerBegin = "server.begin",
    /// Another policy judges from now on.
    PolicyUse = "policy.use",
    /// The clock is right, whatever was seen before.
    ClockAccept = "clock.accept",
    TokenCreate = "token.create",
    TokenRevoke = "token.revoke",
    TicketCreate = "ticket.create",
    /// Fresh evidence of a Mac is wanted.
    DeviceVerify = "device.verify",
    /// Trust in a Mac was withdrawn.
    DeviceRevoke = "device.revoke",
    /// It was given back.
    DeviceRestore = "device.restore",
    /// A provider session belongs to the Mac it claims.
    BindingApprove = "binding.approve",
    /// Macs of a former server were adopted.
    FleetImport = "fleet.import",
    ReleaseRegister = "release.register",
    ReleaseRevoke = "release.revoke",
    WebhookAdd = "webhook.add",
    WebhookRemove = "webhook.remove",
    WebhookReplay = "webhook.replay",
    ReceiverAdd = "receiver.add",
    ReceiverRemove = "receiver.remove",
    /// A key that results are signed by was made where there was none.
    ResultKeyMake = "result_key.make",
    ResultKeyRotate = "result_key.rotate",
    ResultKeyWithdraw = "result_key.withdraw",
    /// Everything sealed comes under another master key.
    SecretsRotate = "secrets.rotate",
    /// The former master key opens nothing any more.
    SecretsFinish = "secrets.finish",
    /// A key of the service's own authority is followed by another.
    AuthorityReplace = "authority.replace",
    /// The service goes on from a backup.
    ServiceRestore = "service.restore",
    PushCertificateRequest = "push_certificate.request",
    PushCertificateInstall = "push_certificate.install",
    /// Chosen Macs try it.
    PushCertificateCanary = "push_certificate.canary",
    /// One person wants it taken into use, or back; another is to confirm it.
    PushCertificatePropose = "push_certificate.propose",
    /// What was proposed is not to be confirmed any more.
    PushCertificateWithdraw = "push_certificate.withdraw",
    PushCertificateActivate = "push_certificate.activate",
    PushCertificateRollback = "push_certificate.rollback",
    /// One that was never used, or a request nothing came of, was thrown away with its key.
    PushCertificateDiscard = "push_certificate.discard",
}

impl Verb {
    /// The verb with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.as_str() == word)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
