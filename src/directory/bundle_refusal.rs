//! Why a published bundle is refused, as a word for the metrics: which client is wrong is seen from what is wrong.

use crate::model::BundleShapeError;
use crate::store::StoreError;

/// A reason to refuse a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BundleRefusal {
    /// Another element, or a part is missing.
    Element,
    /// A key or signature is not base64.
    Base64,
    /// The id of a prekey is missing, wrong, or there twice.
    PrekeyId,
    /// A key has the wrong length or type, or is there twice.
    Key,
    /// The signature has the wrong length, or was not made by this identity.
    Signature,
    /// There is no one-time prekey.
    NoPrekeys,
    /// There are too many of them.
    TooManyPrekeys,
    /// The payload is too long.
    TooLong,
    /// The account has too many bundles of devices that it does not list.
    TooManyBundles,
    /// The account changes its devices too often.
    TooManyChanges,
}

impl BundleRefusal {
    /// All, in a fixed order.
    pub const ALL: [Self; 10] = [
        Self::Element,
        Self::Base64,
        Self::PrekeyId,
        Self::Key,
        Self::Signature,
        Self::NoPrekeys,
        Self::TooManyPrekeys,
        Self::TooLong,
        Self::TooManyBundles,
        Self::TooManyChanges,
    ];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Element => "element",
            Self::Base64 => "base64",
            Self::PrekeyId => "prekey-id",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::NoPrekeys => "no-prekeys",
            Self::TooManyPrekeys => "too-many-prekeys",
            Self::TooLong => "too-long",
            Self::TooManyBundles => "too-many-bundles",
            Self::TooManyChanges => "too-many-changes",
        }
    }

    /// The reason behind an error of the store, if it is one about this bundle.
    pub(super) fn of_store(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::TooManyBundles => Some(Self::TooManyBundles),
            StoreError::TooManyChanges => Some(Self::TooManyChanges),
            _ => None,
        }
    }
}

impl From<&BundleShapeError> for BundleRefusal {
    fn from(error: &BundleShapeError) -> Self {
        match error {
            BundleShapeError::Key(_) | BundleShapeError::DuplicateKey(..) => Self::Key,
            BundleShapeError::Signature => Self::Signature,
            BundleShapeError::NoPrekeys => Self::NoPrekeys,
            BundleShapeError::TooManyPrekeys => Self::TooManyPrekeys,
            BundleShapeError::DuplicateId(_) => Self::PrekeyId,
        }
    }
}
