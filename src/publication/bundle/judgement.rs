//! The policy again: what the result says must be what its policy allows on the evidence beside it.
//!
//! What is not in the bundle stays the service's word: a chain that is not disclosed, what Apple said when
//! an identity was made, how the session was joined to its Mac. So this finds a result that is better than
//! its evidence, and proves none.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{By, Common, Fault, Standing, apple, part, result, text, time};
use crate::posture::policy::{Policy, Rules};
use crate::posture::trust::Level;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A result dates itself in whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// The policy allows what the result says; nothing where the result says nothing good, or where the text
/// is not of the form this service's policies have.
pub(super) fn judgement(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    let policy = bundle.get("policy")?;
    // A result that cannot be relied on has failed already.
    let token = result::good(bundle, common).ok()?;
    let said = Said::of(&token.payload)?;
    let policy = Policy::parse(policy.get("text")?.as_str()?).ok()?;
    let allowed = said.allowed(&policy.rules, bundle, common);
    Some(allowed.map(|()| Standing::Asserted { by: By::Service }))
}

/// What a result says that a policy has to allow.
struct Said {
    iat: Timestamp,
    exp: Timestamp,
    hardware: bool,
}

impl Said {
    fn of(claims: &Map<String, Value>) -> Option<Self> {
        let time = |name: &str| {
            let seconds = claims.get(name)?.as_i64()?;
            Some(Timestamp::from_millis(seconds.checked_mul(1000)?))
        };
        let modules = claims.get("submods")?.as_object()?.values();
        // Of one whose particulars are another program's, only the status is looked at.
        let mut good = modules.filter(|module| {
            let status = module.get("ear_status").and_then(Value::as_str);
            matches!(status, Some("affirming" | "warning"))
        });
        let first = good.next()?;
        let level = |module: &Value| {
            let level = module.get("attestd")?.get("trust_level")?;
            Some(level.as_str()? == Level::Hardware.as_str())
        };
        Some(Self {
            iat: time("iat")?,
            exp: time("exp")?,
            hardware: std::iter::once(first)
                .chain(good)
                .any(|module| level(module) == Some(true)),
        })
    }

    fn allowed(
        &self,
        rules: &Rules,
        bundle: &Map<String, Value>,
        common: &Common<'_>,
    ) -> Result<(), Fault> {
        if rules.require.security_info
            && let Some(report) = bundle.get("security_info")
        {
            self.report_allows(rules, part(report)?)?;
        }
        // A chain that does not hold has failed already.
        let Some(ends) = apple::good_until(bundle, common) else {
            return Ok(());
        };
        if rules.require.apple_chain && self.exp > ends {
            return Err(fault("the result outlasts Apple's certificate"));
        }
        if rules.hardware.key_binding && self.hardware {
            apple::key_named(bundle, common).transpose()?;
        }
        Ok(())
    }

    fn report_allows(&self, rules: &Rules, report: &Map<String, Value>) -> Result<(), Fault> {
        let fields = part(report.get("fields").unwrap_or(&Value::Null))?;
        let demanded = [
            (true, "SystemIntegrityProtectionEnabled"),
            (rules.require.filevault, "FDE_Enabled"),
            (
                rules.require.authenticated_root,
                "AuthenticatedRootVolumeEnabled",
            ),
        ];
        for (demanded, name) in demanded {
            if demanded && fields.get(name) != Some(&Value::Bool(true)) {
                return Err(fault(&format!("the policy demands {name}")));
            }
        }
        if text(fields, "SecureBoot.SecureBootLevel")? != "full" {
            return Err(fault("the policy demands full Secure Boot"));
        }
        let observed_at = time(report, "observed_at")?;
        if observed_at >= self.iat.plus(SECOND) {
            return Err(fault("the result is older than what it rests on"));
        }
        if self.exp > observed_at.plus(rules.security_info.usable_for.0) {
            return Err(fault("the result outlasts what the Mac reported"));
        }
        Ok(())
    }
}

fn fault(detail: &str) -> Fault {
    Fault::new(Reason::EvidenceConflict, detail)
}
