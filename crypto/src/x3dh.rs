//! X3DH key agreement (signal.org/docs/specifications/x3dh; XEP-0384, "Key Exchange").
//!
//! Both sides end with the same 32 bytes, which start the root chain of a Double Ratchet. A one-time prekey always takes
//! part: the XEP says that key exchanges without one MUST be rejected, and these functions cannot express one.

use zeroize::Zeroizing;

use crate::{
    curve25519::{NonContributory, PublicKey, SecretKey},
    generation::Generation,
    kdf::{HASH_LENGTH, hkdf_sha256},
    secret::Secret32,
};

/// `F` of the specification: keeps the input of the KDF apart from any encoding of a curve point.
const PADDING: [u8; 32] = [0xFF; 32];

/// The public keys of the passive side, from its bundle. Their signature must have been checked.
#[derive(Debug, Clone, Copy)]
pub struct PassiveKeys {
    /// Identity key in Curve25519 form.
    pub identity: PublicKey,
    /// Signed prekey.
    pub signed_prekey: PublicKey,
    /// One-time prekey.
    pub prekey: PublicKey,
}

/// The public keys of the active side, from its key exchange.
#[derive(Debug, Clone, Copy)]
pub struct ActiveKeys {
    /// Identity key in Curve25519 form.
    pub identity: PublicKey,
    /// Ephemeral key, made for this key exchange only.
    pub ephemeral: PublicKey,
}

/// The secret as the active side ("Alice") computes it.
///
/// # Errors
/// [`NonContributory`] when the passive side forced a secret.
pub fn initiate<G: Generation>(
    identity: &SecretKey,
    ephemeral: &SecretKey,
    passive: &PassiveKeys,
) -> Result<Secret32, NonContributory> {
    Ok(derive::<G>(&[
        identity.diffie_hellman(&passive.signed_prekey)?,
        ephemeral.diffie_hellman(&passive.identity)?,
        ephemeral.diffie_hellman(&passive.signed_prekey)?,
        ephemeral.diffie_hellman(&passive.prekey)?,
    ]))
}

/// The secret as the passive side ("Bob") computes it.
///
/// # Errors
/// [`NonContributory`] when the active side forced a secret.
pub fn respond<G: Generation>(
    identity: &SecretKey,
    signed_prekey: &SecretKey,
    prekey: &SecretKey,
    active: &ActiveKeys,
) -> Result<Secret32, NonContributory> {
    Ok(derive::<G>(&[
        signed_prekey.diffie_hellman(&active.identity)?,
        identity.diffie_hellman(&active.ephemeral)?,
        signed_prekey.diffie_hellman(&active.ephemeral)?,
        prekey.diffie_hellman(&active.ephemeral)?,
    ]))
}

/// `KDF(DH1 || DH2 || DH3 || DH4)` of the specification.
fn derive<G: Generation>(shared: &[Secret32]) -> Secret32 {
    // The capacity is exact: growing would leave secrets behind in freed memory.
    let mut input = Zeroizing::new(Vec::with_capacity(shared.len().saturating_add(1).saturating_mul(32)));
    input.extend_from_slice(&PADDING);
    for secret in shared {
        input.extend_from_slice(secret.expose());
    }
    Secret32::new(*hkdf_sha256(&[0; HASH_LENGTH], &input, G::X3DH_INFO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{Legacy, Omemo2};

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// libsignal-protocol-c's `test_ratcheting_session_as_bob`, a session without a one-time prekey. What it publishes is the
    /// second half of HKDF's output, a chain key that OMEMO does not use; the first half is the secret that starts the
    /// root chain.
    #[test]
    fn known_answer_of_three_agreements() {
        let secret = |hex: &str| SecretKey::from_bytes(bytes(hex));
        let public = |hex: &str| PublicKey::from_slice(&bytes(hex)).unwrap();
        let identity = secret("4875cc69ddf8ea0719ec947d61081135868d5fd801f02c0225e516df2156605e");
        let signed_prekey = secret("583900131fb727998b7803fe6ac22cc591f342e4e42a8c8d5d78194209b8d253");
        let peer_identity = public("b4a8455660ada65b401007f615e654041746432e3339c6875149bceefcb42b4a");
        let peer_base = public("472d1fb1a9862c3af6beaca8920277e2b26f4a79213ec7c906aeb35e03cf8950");
        let shared = [
            signed_prekey.diffie_hellman(&peer_identity).unwrap(),
            identity.diffie_hellman(&peer_base).unwrap(),
            signed_prekey.diffie_hellman(&peer_base).unwrap(),
        ];
        let mut input = PADDING.to_vec();
        shared.iter().for_each(|secret| input.extend_from_slice(secret.expose()));
        let both = hkdf_sha256::<64>(&[0; HASH_LENGTH], &input, Legacy::X3DH_INFO);
        assert_eq!(both[32..], bytes("9797caca53c989bbe229a40ca7727010eb2604fc14945d77958a0aeda088b44d"));
        assert_eq!(derive::<Legacy>(&shared).expose(), &both[..32]);
    }

    #[test]
    fn both_sides_agree_and_generations_differ() {
        let [alice, ephemeral, bob, signed, one_time] = [1, 2, 3, 4, 5].map(|byte| SecretKey::from_bytes([byte; 32]));
        let passive = PassiveKeys {
            identity: bob.public_key(),
            signed_prekey: signed.public_key(),
            prekey: one_time.public_key(),
        };
        let active = ActiveKeys { identity: alice.public_key(), ephemeral: ephemeral.public_key() };
        let secret = initiate::<Omemo2>(&alice, &ephemeral, &passive).unwrap();
        assert_eq!(respond::<Omemo2>(&bob, &signed, &one_time, &active).unwrap(), secret);
        assert_ne!(respond::<Legacy>(&bob, &signed, &one_time, &active).unwrap(), secret);
        assert_ne!(respond::<Omemo2>(&bob, &signed, &signed, &active).unwrap(), secret);
    }
}
