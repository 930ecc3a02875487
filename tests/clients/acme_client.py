"""Drives an ACME directory with the client library of another ecosystem (`acme`, `josepy`).

Usage: acme_client.py DIRECTORY_URL IDENTIFIER

Prints one JSON line for each step. When it prints `{"step": "token", "token": ...}` it reads one JSON
line with `attObj` and `csr` (both base64url) from standard input and goes on to the certificate.
Exit status 0 only if every step had the answer RFC 8555 gives it.
"""

import json
import sys

import josepy
from acme import client, messages
from cryptography.hazmat.primitives.asymmetric import ec

PERMANENT_IDENTIFIER = messages.IdentifierType("permanent-identifier")


def say(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def refused(kind, call, *arguments, **named):
    """The call must end in the ACME problem `kind`."""
    try:
        call(*arguments, **named)
    except messages.Error as error:
        found = error.typ.rpartition(":")[2]
        assert found == kind, f"{found} in place of {kind}: {error}"
        say("refused", kind=kind)
        return
    raise AssertionError(f"nothing refused with {kind}")


def network():
    key = josepy.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    return client.ClientNetwork(key, alg=josepy.ES256, user_agent="conformance")


def new_order(acme, kind, value):
    order = messages.NewOrder(
        identifiers=[messages.Identifier(typ=kind, value=value)]
    )
    return acme._post(acme.directory["newOrder"], order)


def main(directory_url, identifier):
    net = network()
    directory = messages.Directory.from_json(net.get(directory_url).json())
    acme = client.ClientV2(directory, net)
    say("directory")

    # 7.3.1: an account that must exist, and does not.
    only_existing = messages.NewRegistration.from_data(terms_of_service_agreed=True)
    only_existing = only_existing.update(only_return_existing=True)
    refused("accountDoesNotExist", acme._post, directory["newAccount"], only_existing)

    # 7.3: a new account, and the same key again.
    registration = messages.NewRegistration.from_data(terms_of_service_agreed=True)
    account = acme.new_account(registration)
    assert account.body.status == "valid", account
    say("account", url=account.uri)
    net.account = None  # signs with the key itself again
    again = acme._post(directory["newAccount"], registration)
    assert again.status_code == 200 and again.headers["Location"] == account.uri, again
    net.account = account
    assert acme.query_registration(account).uri == account.uri

    # 7.4: an order for what nobody may have, and one for what the ticket names.
    refused("unsupportedIdentifier", new_order, acme, messages.IDENTIFIER_FQDN, "example.org")
    refused("rejectedIdentifier", new_order, acme, PERMANENT_IDENTIFIER, "SOMEBODYELSE")
    response = new_order(acme, PERMANENT_IDENTIFIER, identifier)
    assert response.status_code == 201, response
    order_url, order = response.headers["Location"], response.json()
    assert order["status"] == "pending" and len(order["authorizations"]) == 1, order
    say("order", url=order_url)

    # 6.3: a resource is read by POST-as-GET; 6.5: nonces are good once.
    authorization = acme._post_as_get(order["authorizations"][0]).json()
    assert authorization["status"] == "pending", authorization
    (challenge,) = authorization["challenges"]
    assert challenge["type"] == "device-attest-01", challenge
    nonce = net._get_nonce(None, directory["newNonce"])
    signed = net._wrap_in_jws(None, nonce, order_url)
    jose = {"Content-Type": net.JOSE_CONTENT_TYPE}
    assert net._send_request("POST", order_url, data=signed, headers=jose).status_code == 200
    replayed = net._send_request("POST", order_url, data=signed, headers=jose)
    assert replayed.status_code == 400, replayed
    assert replayed.json()["type"] == "urn:ietf:params:acme:error:badNonce", replayed.json()
    assert "Replay-Nonce" in replayed.headers, "6.5: errors carry a nonce too"
    say("refused", kind="badNonce")

    # 7.4: nothing is finalized before its authorizations are valid.
    say("token", token=challenge["token"])
    made = json.loads(sys.stdin.readline())
    finalize = Fields(csr=made["csr"])
    refused("orderNotReady", acme._post, order["finalize"], finalize)

    answered = acme._post(challenge["url"], Fields(attObj=made["attObj"])).json()
    assert answered["status"] == "valid", answered
    assert acme._post_as_get(order_url).json()["status"] == "ready"
    finalized = acme._post(order["finalize"], finalize).json()
    assert finalized["status"] == "valid", finalized
    certificate = acme._post_as_get(finalized["certificate"])
    assert certificate.headers["Content-Type"] == "application/pem-certificate-chain"
    say("certificate", pem=certificate.text)

    # A directory is good for one certificate.
    refused("unauthorized", new_order, acme, PERMANENT_IDENTIFIER, identifier)

    # 7.3.6: a deactivated account asks for nothing any more.
    deactivated = acme.deactivate_registration(account)
    assert deactivated.body.status == "deactivated", deactivated
    refused("unauthorized", new_order, acme, PERMANENT_IDENTIFIER, identifier)
    say("done")


class Fields(josepy.JSONDeSerializable):
    """A payload the library has no type for."""

    def __init__(self, **fields):
        self.fields = fields

    def to_partial_json(self):
        return self.fields

    @classmethod
    def from_json(cls, jobj):
        return cls(**jobj)


if __name__ == "__main__":
    main(*sys.argv[1:])
