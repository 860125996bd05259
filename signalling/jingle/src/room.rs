//! Groups as rooms (XEP-0045): entering, leaving, and what an occupant's presence says.

use crate::node::Node;
use crate::ns;
use minidom::Element;
use xso::{AsXml, FromXml};

/// Status codes of XEP-0045 section 15.6 that matter to us.
pub mod status {
    /// This presence is about ourselves.
    pub const SELF: u16 = 110;
    /// The room was made by our entering and is locked until configured.
    pub const CREATED: u16 = 201;
    /// The occupant was banned.
    pub const BANNED: u16 = 301;
    /// The occupant goes on under another nick.
    pub const RENAMED: u16 = 303;
    /// The occupant was kicked.
    pub const KICKED: u16 = 307;
    /// The occupant lost the affiliation that being here takes.
    pub const AFFILIATION_LOST: u16 = 321;
    /// The room is for members only now and the occupant is none.
    pub const MEMBERS_ONLY: u16 = 322;
    /// The service shuts down: it is the room that leaves, not the occupant.
    pub const SHUTDOWN: u16 = 332;
    /// The occupant was removed because of an error (its server fell silent, say).
    pub const ERROR: u16 = 333;
}

#[derive(Clone, Debug, Default, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC, name = "x")]
struct JoinElement {
    #[xml(extract(namespace = ns::MUC, name = "password", default,
        fields(text(type_ = String))))]
    password: Option<String>,
    #[xml(child(default))]
    history: Option<HistoryElement>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC, name = "history")]
struct HistoryElement {
    #[xml(attribute)]
    maxstanzas: u32,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC_USER, name = "x")]
struct UserElement {
    #[xml(child(n = ..))]
    statuses: Vec<StatusElement>,
    #[xml(child(n = ..))]
    items: Vec<ItemElement>,
    #[xml(child(n = ..))]
    destroys: Vec<DestroyElement>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC_USER, name = "status")]
struct StatusElement {
    #[xml(attribute)]
    code: String,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC_USER, name = "item")]
struct ItemElement {
    #[xml(attribute(default))]
    nick: Option<String>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC_USER, name = "destroy")]
struct DestroyElement;

/// The `<x/>` that turns a presence into a request to enter, without any of the room's history.
pub fn emit_join(password: Option<&str>) -> Element {
    Element::from(JoinElement {
        password: password.map(str::to_owned),
        history: Some(HistoryElement { maxstanzas: 0 }),
    })
}

/// A request to enter a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The room's password, as the one who enters knows it.
    pub password: Option<String>,
}

/// Reads what [`emit_join`] writes, for a server; `None` when the element is no request to enter.
pub fn parse_join(element: &Element) -> Option<Join> {
    JoinElement::try_from(element.clone()).ok().map(|join| Join { password: join.password })
}

/// What a room says about an occupant beside the occupant's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OccupantNotice {
    /// See [`status`].
    pub statuses: Vec<u16>,
    /// The nick an occupant goes on under, with [`status::RENAMED`].
    pub new_nick: Option<String>,
    /// The room is no more.
    pub destroyed: bool,
}

impl OccupantNotice {
    /// Reads the `muc#user` element among a presence's payloads. Rooms that leave it out say
    /// nothing, which is a notice too.
    pub fn parse(payloads: &[Element]) -> Self {
        let is_user = |payload: &&Element| payload.is("x", ns::MUC_USER);
        let user = payloads.iter().find(is_user).cloned();
        let Some(user) = user.and_then(|user| UserElement::try_from(user).ok()) else {
            return Self::default();
        };
        Self {
            statuses: user.statuses.iter().filter_map(|s| s.code.parse().ok()).collect(),
            new_nick: user.items.into_iter().find_map(|item| item.nick),
            destroyed: !user.destroys.is_empty(),
        }
    }

    /// Whether the notice carries a status code.
    pub fn has(&self, status: u16) -> bool {
        self.statuses.contains(&status)
    }
}

/// Finds the node's description among a presence's payloads.
pub fn node_of(payloads: &[Element]) -> Option<Node> {
    payloads.iter().find(|payload| payload.is("node", ns::NODE)).and_then(Node::parse)
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::MUC_OWNER, name = "query")]
struct OwnerElement {
    #[xml(child)]
    form: FormElement,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::DATA_FORMS, name = "x")]
struct FormElement {
    #[xml(attribute = "type")]
    kind: String,
    #[xml(child(n = ..))]
    fields: Vec<FieldElement>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::DATA_FORMS, name = "field")]
struct FieldElement {
    #[xml(attribute)]
    var: String,
    #[xml(child)]
    value: ValueElement,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::DATA_FORMS, name = "value")]
struct ValueElement {
    #[xml(text)]
    text: String,
}

/// The query that unlocks a room just made (XEP-0045 section 10.1.2). An empty form takes the
/// service's defaults; with a password the room asks everyone for it from now on.
pub fn emit_configuration(password: Option<&str>) -> Element {
    let field = |var: &str, value: &str| FieldElement {
        var: var.to_owned(),
        value: ValueElement { text: value.to_owned() },
    };
    let fields = match password {
        None => Vec::new(),
        Some(password) => vec![
            field("FORM_TYPE", ns::MUC_ROOMCONFIG),
            field("muc#roomconfig_passwordprotectedroom", "1"),
            field("muc#roomconfig_roomsecret", password),
        ],
    };
    Element::from(OwnerElement { form: FormElement { kind: "submit".into(), fields } })
}
