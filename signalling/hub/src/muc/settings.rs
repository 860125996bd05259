//! The one thing about a room that its owner can set: a password (XEP-0045 section 10).

use ipop_jingle::ns;
use minidom::Element;
use minidom::rxml::xml_ncname;

use crate::stanza::with_attributes;

const PROTECTED: &str = "muc#roomconfig_passwordprotectedroom";
const SECRET: &str = "muc#roomconfig_roomsecret";
const PASSWORD_LEN_MAX: usize = 256;

/// What an owner's form means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Everything stays as it is.
    Nothing,
    /// The room asks for this from now on, or for nothing.
    Password(Option<String>),
}

/// Reads an owner's query; `None` when it asks for what rooms here cannot do.
pub(super) fn change_of(query: &Element) -> Option<Change> {
    let form = query.get_child("x", ns::DATA_FORMS)?;
    if form.attr("type") == Some("cancel") {
        return Some(Change::Nothing);
    }
    let field = |name: &str| {
        let mut fields = form.children().filter(|field| field.is("field", ns::DATA_FORMS));
        let field = fields.find(|field| field.attr("var") == Some(name))?;
        field.get_child("value", ns::DATA_FORMS).map(Element::text)
    };
    match (field(PROTECTED).as_deref(), field(SECRET)) {
        (None, None) => Some(Change::Nothing),
        (Some("0" | "false"), _) => Some(Change::Password(None)),
        (_, Some(secret)) if secret.is_empty() => Some(Change::Password(None)),
        (_, Some(secret)) => {
            (secret.len() <= PASSWORD_LEN_MAX).then_some(Change::Password(Some(secret)))
        }
        (Some(_), None) => None,
    }
}

/// The form that an owner fills in.
pub(super) fn form(password: Option<&str>) -> Element {
    let protected = if password.is_some() { "1" } else { "0" };
    let fields = [
        ("FORM_TYPE", "hidden", ns::MUC_ROOMCONFIG),
        (PROTECTED, "boolean", protected),
        (SECRET, "text-private", password.unwrap_or_default()),
    ];
    let mut form = with_attributes("x", ns::DATA_FORMS, &[(xml_ncname!("type"), "form")]);
    for (var, kind, value) in fields {
        let attributes = [(xml_ncname!("var"), var), (xml_ncname!("type"), kind)];
        let mut field = with_attributes("field", ns::DATA_FORMS, &attributes);
        field.append_child(Element::builder("value", ns::DATA_FORMS).append(value).build());
        form.append_child(field);
    }
    let mut query = Element::bare("query", ns::MUC_OWNER);
    query.append_child(form);
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipop_jingle::room::emit_configuration;

    #[test]
    fn our_own_client_is_understood() {
        assert_eq!(change_of(&emit_configuration(None)), Some(Change::Nothing));
        let set = Change::Password(Some("sesame".into()));
        assert_eq!(change_of(&emit_configuration(Some("sesame"))), Some(set));
        assert_eq!(change_of(&Element::bare("query", ns::MUC_OWNER)), None);
    }

    #[test]
    fn the_form_says_what_is_set() {
        let set = |password| change_of(&form(password)).unwrap();
        assert_eq!(set(Some("sesame")), Change::Password(Some("sesame".into())));
        assert_eq!(set(None), Change::Password(None));
    }
}
