"""The policy again: what a result says must be what its policy allows on the evidence beside it.

What is not in the bundle stays the service's word; docs/verify.md says what is looked at.
"""
import tomllib
from datetime import datetime, timedelta, timezone
from texts import moment, need

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

def span(text):
    return timedelta(**{UNITS[text[-1]]: int(text[:-1])})

def to_allow(text, result):
    """The rules of a policy, where there is anything that they have to allow."""
    if all(module["ear_status"] not in ("affirming", "warning") for module in result["submods"].values()):
        return None
    try:
        rules = tomllib.loads(text)
        flags = [rules["require"][name] for name in ("apple_chain", "security_info", "filevault", "authenticated_root")]
        known = all(type(flag) is bool for flag in (*flags, rules["hardware"]["key_binding"]))
        return rules if known and span(rules["security_info"]["usable_for"]) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None  # another service's rules

def allows(rules, result, report, leaf, key_named):
    """Raises unless they do. `report` is the part `security_info`, `leaf` Apple's certificate, or None; `key_named`
    raises unless Apple's statement names the key."""
    require, exp = rules["require"], datetime.fromtimestamp(result["exp"], timezone.utc)
    if require["security_info"] and report is not None:
        fields, observed_at = report["fields"], moment(report["observed_at"])
        demanded = {"SystemIntegrityProtectionEnabled": True, "FDE_Enabled": require["filevault"],
                    "AuthenticatedRootVolumeEnabled": require["authenticated_root"]}
        for name, is_demanded in demanded.items():
            need(not is_demanded or fields.get(name) is True, f"the policy demands {name}")
        need(fields["SecureBoot.SecureBootLevel"] == "full", "the policy demands full Secure Boot")
        need(observed_at.timestamp() < result["iat"] + 1, "the result is older than what it rests on")
        need(exp <= observed_at + span(rules["security_info"]["usable_for"]), "the result outlasts what the Mac reported")
    if require["apple_chain"] and leaf:
        need(exp <= leaf.not_valid_after.replace(tzinfo=timezone.utc), "the result outlasts Apple's certificate")
    said = [module.get("attestd") for module in result["submods"].values()]
    is_hardware = any(isinstance(more, dict) and more.get("trust_level") == "hardware" for more in said)
    if rules["hardware"]["key_binding"] and is_hardware and leaf:
        key_named()
