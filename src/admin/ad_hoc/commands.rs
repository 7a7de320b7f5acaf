//! The commands: what each asks, and what it does.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use crate::admin::devices::DeviceError;
use crate::admin::long_work::OnProgress;
use crate::admin::{cursors, dead_letters, device, devices, erase, owners, retention, stats, status};
use crate::model::{Clock, DeviceId, Owner, Protocol};
use crate::stanza::ad_hoc::{Question, QuestionKind, Request};
use crate::store::{DevicePlace, Store, StoreError};

/// The beginning of every command's node.
const NODES: &str = "urn:multiend:0:admin#";
/// Owners of a page, if nobody says how many; and at most.
const OWNERS: u32 = 50;
const MOST_OWNERS: u32 = 500;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    Stats,
    Owners,
    Devices,
    Cursors,
    Quarantine,
    Revive,
    Remove,
    Retention,
    DeadLetters,
    Erase,
}

/// What a command works with.
pub(super) struct Given<'a, S: ?Sized> {
    pub(super) store: &'a S,
    pub(super) clock: &'a dyn Clock,
    pub(super) max_devices: usize,
    pub(super) purge_batch: u32,
    pub(super) request: &'a Request,
}

/// Why a command did nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The form is not filled in as it should be.
    Form(String),
    /// It cannot be done.
    Refused(String),
    /// The database.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Store(error) => Self::Store(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

const OWNER: Question = Question { var: "owner", label: "Account", kind: QuestionKind::Jid, required: true };
const DEVICE: [Question; 3] = [
    OWNER,
    Question {
        var: "protocol",
        label: "Protocol",
        kind: QuestionKind::OneOf(&[("omemo2", "OMEMO 2"), ("legacy", "OMEMO, legacy")]),
        required: true,
    },
    Question { var: "device", label: "Id of the device", kind: QuestionKind::Text, required: true },
];

impl Command {
    /// All, in the order in which they are listed.
    pub(super) const ALL: [Self; 11] = [
        Self::Status,
        Self::Stats,
        Self::Owners,
        Self::Devices,
        Self::Cursors,
        Self::Quarantine,
        Self::Revive,
        Self::Remove,
        Self::Retention,
        Self::DeadLetters,
        Self::Erase,
    ];

    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stats => "stats",
            Self::Owners => "owners",
            Self::Devices => "devices",
            Self::Cursors => "cursors",
            Self::Quarantine => "quarantine",
            Self::Revive => "revive",
            Self::Remove => "remove",
            Self::Retention => "retention",
            Self::DeadLetters => "dead-letters",
            Self::Erase => "erase",
        }
    }

    /// Its node.
    pub(super) fn node(self) -> String {
        format!("{NODES}{}", self.name())
    }

    /// The command of a node.
    pub(super) fn of_node(node: &str) -> Option<Self> {
        let name = node.strip_prefix(NODES)?;
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// What a person chooses it by.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Status => "How multiend stands",
            Self::Stats => "What the database holds",
            Self::Owners => "Accounts",
            Self::Devices => "Devices of an account",
            Self::Cursors => "How far devices have read",
            Self::Quarantine => "Quarantine a device",
            Self::Revive => "Bring a device back",
            Self::Remove => "Remove a device",
            Self::Retention => "Expired messages",
            Self::DeadLetters => "Messages that could not be stored",
            Self::Erase => "Erase an account",
        }
    }

    /// What is said above the form.
    pub(super) fn instructions(self) -> &'static str {
        match self {
            Self::Status | Self::Stats => "",
            Self::Owners => "Leave everything empty for the first page.",
            Self::Devices | Self::Cursors => "Whose?",
            Self::Quarantine => "It leaves the list that everybody is given, until it shows itself or is listed again.",
            Self::Revive => "It comes back to the end of the list.",
            Self::Remove => "It leaves the list, and its bundle is retracted, for good.",
            Self::Retention => "Without removing, this only says what has expired and is still there.",
            Self::DeadLetters => "List them, or try to store all of them again.",
            Self::Erase => {
                "Deletes everything about an account, for good. Delete it on its server first. It may take several calls."
            }
        }
    }

    /// What its form asks.
    pub(super) fn questions(self) -> &'static [Question] {
        match self {
            Self::Status | Self::Stats => &[],
            Self::Owners => &[
                Question { var: "after", label: "After this account", kind: QuestionKind::Jid, required: false },
                Question { var: "limit", label: "At most so many", kind: QuestionKind::Text, required: false },
            ],
            Self::Devices | Self::Cursors => &[OWNER],
            Self::Quarantine | Self::Revive | Self::Remove => &DEVICE,
            Self::Retention => {
                &[Question { var: "run", label: "Remove them now", kind: QuestionKind::YesNo, required: false }]
            }
            Self::DeadLetters => &[Question {
                var: "action",
                label: "What to do",
                kind: QuestionKind::OneOf(&[("list", "List them"), ("retry", "Store all of them again")]),
                required: true,
            }],
            Self::Erase => &[
                OWNER,
                Question {
                    var: "confirm",
                    label: "The same address once more: yes, everything",
                    kind: QuestionKind::Jid,
                    required: true,
                },
            ],
        }
    }

    /// Whether it may do more than look.
    pub(super) fn changes_something(self) -> bool {
        match self {
            Self::Status | Self::Stats | Self::Owners | Self::Devices | Self::Cursors => false,
            Self::Quarantine | Self::Revive | Self::Remove | Self::Retention | Self::DeadLetters | Self::Erase => true,
        }
    }

    /// Does it; what it has to say.
    pub(super) async fn run<S: Store + ?Sized>(
        self,
        given: &Given<'_, S>,
        progress: impl OnProgress,
    ) -> Result<Value, Failure> {
        let Given { store, clock, max_devices, purge_batch, request } = *given;
        match self {
            Self::Status => report(&status::status(store, clock, "this one, which answers".to_owned()).await?),
            Self::Stats => report(&stats::stats(store).await?),
            Self::Owners => {
                let after = request.value("after").map(owner_of).transpose()?;
                let limit = request.value("limit").map(|text| parsed::<u32>("limit", text)).transpose()?;
                let limit = limit.unwrap_or(OWNERS).clamp(1, MOST_OWNERS);
                report(&owners::owners(store, after.as_ref(), limit).await?)
            }
            Self::Devices => report(&devices::devices(store, &owner(request)?).await?),
            Self::Cursors => report(&cursors::cursors(store, &owner(request)?).await?),
            Self::Quarantine => report(&device::quarantine(store, place(request)?, clock).await?),
            Self::Revive => report(&device::revive(store, place(request)?, max_devices, clock).await?),
            Self::Remove => report(&device::remove(store, place(request)?, clock).await?),
            Self::Retention if is_yes(request.value("run")) => {
                report(&retention::run(store, clock, purge_batch, progress).await?)
            }
            Self::Retention => report(&retention::dry_run(store, clock).await?),
            Self::DeadLetters if request.value("action") == Some("retry") => {
                report(&dead_letters::retry(store, &[]).await?)
            }
            Self::DeadLetters => report(&dead_letters::list(store).await?),
            Self::Erase => {
                let owner = owner(request)?;
                if request.value("confirm").map(owner_of).transpose()? != Some(owner.clone()) {
                    return Err(Failure::Form("the two addresses differ; nothing was erased".to_owned()));
                }
                report(&erase::erase(store, &owner, progress).await?)
            }
        }
    }
}

fn report(report: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(report).map_err(|error| Failure::Refused(error.to_string()))
}

/// `1` or `true` (XEP-0004 §3.3).
fn is_yes(value: Option<&str>) -> bool {
    matches!(value, Some("1" | "true"))
}

fn parsed<T: FromStr>(var: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Form(format!("{var} makes no sense")))
}

fn owner_of(text: &str) -> Result<Owner, Failure> {
    Owner::parse(text).map_err(|error| Failure::Form(error.to_string()))
}

fn required<'r>(request: &'r Request, var: &str) -> Result<&'r str, Failure> {
    request.value(var).ok_or_else(|| Failure::Form(format!("{var} is missing")))
}

fn owner(request: &Request) -> Result<Owner, Failure> {
    owner_of(required(request, "owner")?)
}

fn place(request: &Request) -> Result<DevicePlace, Failure> {
    let protocol = required(request, "protocol")?;
    let protocol = Protocol::ALL
        .into_iter()
        .find(|known| known.name() == protocol)
        .ok_or_else(|| Failure::Form("protocol is legacy or omemo2".to_owned()))?;
    let device = DeviceId::parse(required(request, "device")?).map_err(|error| Failure::Form(error.to_string()))?;
    Ok(DevicePlace { owner: owner(request)?, protocol, device })
}
