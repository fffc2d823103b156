//! SES, version 1 of its API: mails go to the mailbox, from senders that were declared, and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use crate::call::{Call, ConditionKeys};
use crate::declared::MailIdentity;
use crate::error::AwsError;
use crate::gateway::{query, xml};
use crate::mailbox::{self, Mail};
use crate::sts::unknown_action;
use crate::{Cloud, CloudError};

pub(crate) const NAMESPACE: &str = "http://ses.amazonaws.com/doc/2010-12-01/";

const MOST_RECIPIENTS: usize = 50;

#[expect(clippy::unused_async, reason = "the shape that all services share")]
pub(crate) async fn handle(cloud: &Arc<Cloud>, call: Call) -> Result<Response, AwsError> {
    if call.uri.path() != "/" {
        return Err(AwsError::new(
            StatusCode::NOT_FOUND,
            "UnknownOperationException",
            "the local cloud has version 1 of the SES API only",
        ));
    }
    let form = Form::parse(&call.body);
    let operation = form.text("Action").unwrap_or_default();
    let content = match operation {
        "SendEmail" => send_email(cloud, &call, &form)?,
        "GetSendQuota" => {
            let action = "ses:GetSendQuota";
            cloud.authorize(&call, action, "*", ConditionKeys::new())?;
            "<SentLast24Hours>0.0</SentLast24Hours><Max24HourSend>50000.0</Max24HourSend>\
             <MaxSendRate>14.0</MaxSendRate>"
                .to_owned()
        }
        "ListIdentities" => {
            let action = "ses:ListIdentities";
            cloud.authorize(&call, action, "*", ConditionKeys::new())?;
            let identities = cloud.declared.all::<MailIdentity>();
            let members = identities.iter().map(|it| format!("<member>{}</member>", xml(&it.address)));
            format!("<Identities>{}</Identities>", members.collect::<String>())
        }
        "GetIdentityVerificationAttributes" => {
            let action = "ses:GetIdentityVerificationAttributes";
            cloud.authorize(&call, action, "*", ConditionKeys::new())?;
            verification(cloud, &form)
        }
        operation => return Err(unknown_action(operation)),
    };
    Ok(query(NAMESPACE, operation, &content, &call.request_id))
}

fn send_email(cloud: &Cloud, call: &Call, form: &Form) -> Result<String, AwsError> {
    let source = form.required("Source")?;
    let (display_name, sender) = mailbox_of(source)?;
    let mut recipients = Vec::new();
    for list in ["To", "Cc", "Bcc"] {
        for address in form.members(&format!("Destination.{list}Addresses")) {
            recipients.push(mailbox_of(address)?.1);
        }
    }
    let mut keys = ConditionKeys::new();
    keys.insert("ses:FromAddress".to_owned(), vec![sender.clone()]);
    keys.insert("ses:Recipients".to_owned(), recipients.clone());
    keys.insert("ses:ApiVersion".to_owned(), vec!["1".to_owned()]);
    if let Some(name) = display_name {
        keys.insert("ses:FromDisplayName".to_owned(), vec![name]);
    }
    let action = "ses:SendEmail";
    cloud.authorize(call, action, &cloud.identity_arn(&sender), keys.clone())?;
    // A recipient that is an identity of the account is authorised too (in AWS's sandbox, that is every one).
    for recipient in &recipients {
        if *recipient != sender && cloud.has_mail_identity(recipient) {
            cloud.authorize(call, action, &cloud.identity_arn(recipient), keys.clone())?;
        }
    }
    if recipients.is_empty() {
        return Err(invalid("Must have at least one recipient"));
    }
    if recipients.len() > MOST_RECIPIENTS {
        return Err(rejected("Recipient count exceeds 50."));
    }
    if !cloud.has_mail_identity(&sender) {
        return Err(rejected(&format!(
            "Email address is not verified. The following identities failed the check in region {}: {sender}",
            cloud.options.region.to_uppercase()
        )));
    }
    let subject = form.required("Message.Subject.Data")?;
    no_control("the subject", subject)?;
    for address in form.members("ReplyToAddresses") {
        mailbox_of(address)?;
    }
    let text = form.text("Message.Body.Text.Data");
    let html = form.text("Message.Body.Html.Data");
    if text.is_none() && html.is_none() {
        return Err(invalid("Message.Body needs Text or Html"));
    }
    let mail = Mail {
        to: recipients.join(", "),
        from: source.to_owned(),
        subject: subject.to_owned(),
        text: text.unwrap_or_default().to_owned(),
        html: html.unwrap_or_default().to_owned(),
        received_at: crate::events::now(),
    };
    mailbox::deliver(cloud, recipients, &mail).map_err(AwsError::internal)?;
    Ok(format!("<MessageId>{}-000000</MessageId>", crate::credentials::uuid()))
}

fn verification(cloud: &Cloud, form: &Form) -> String {
    let entries = form.members("Identities").filter(|it| cloud.has_mail_identity(it));
    let entries = entries.map(|identity| {
        format!(
            "<entry><key>{}</key><value><VerificationStatus>Success</VerificationStatus></value></entry>",
            xml(identity)
        )
    });
    let entries: String = entries.collect();
    format!("<VerificationAttributes>{entries}</VerificationAttributes>")
}

impl Cloud {
    /// Lets the cloud send from an address. (There is nothing to verify on one's own machine.)
    ///
    /// # Errors
    /// [`CloudError::Declaration`] when it is no address.
    pub fn put_mail_identity(&self, address: &str) -> Result<(), CloudError> {
        let parsed = mailbox_of(address).ok().filter(|(name, _)| name.is_none());
        let Some((_, address)) = parsed else {
            let problem = format!("{address:?} is not a mail address to send from");
            return Err(CloudError::Declaration(problem));
        };
        self.declared.put(&self.store, MailIdentity { address })
    }

    /// Takes an address away; one that is not there counts as deleted.
    ///
    /// # Errors
    /// [`CloudError`] when it can't be kept.
    pub fn delete_mail_identity(&self, address: &str) -> Result<(), CloudError> {
        self.declared.delete::<MailIdentity>(&self.store, &normal(address))
    }

    /// Whether the cloud may send from an address.
    pub fn has_mail_identity(&self, address: &str) -> bool {
        self.declared.get::<MailIdentity>(&normal(address)).is_some()
    }

    fn identity_arn(&self, address: &str) -> String {
        let (region, account) = (&self.options.region, &self.options.account);
        format!("arn:aws:ses:{region}:{account}:identity/{address}")
    }
}

/// `address` or `Name <address>`: the name and the address, its domain in lower case.
fn mailbox_of(text: &str) -> Result<(Option<String>, String), AwsError> {
    no_control("an address", text)?;
    let text = text.trim();
    let (name, address) = match text.strip_suffix('>').and_then(|it| it.rsplit_once('<')) {
        Some((name, address)) => {
            let name = name.trim().trim_matches('"').to_owned();
            ((!name.is_empty()).then_some(name), address)
        }
        None => (None, text),
    };
    let fine = |letter: char| letter.is_ascii_graphic() && !"<>(),;:\"[]\\".contains(letter);
    match address.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && !domain.is_empty()
                && !local.contains('@')
                && address.len() <= 320
                && address.chars().all(fine) =>
        {
            Ok((name, normal(address)))
        }
        Some(_) => Err(invalid("Illegal address")),
        None => Err(invalid("Missing final '@domain'")),
    }
}

/// Domains are the same in capitals and small letters; what stands before the `@` may not be.
fn normal(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
        None => address.to_owned(),
    }
}

/// A line break in a header would begin a header of the caller's own.
fn no_control(what: &str, text: &str) -> Result<(), AwsError> {
    if text.chars().any(char::is_control) {
        return Err(invalid(&format!("{what} holds a control character")));
    }
    Ok(())
}

fn invalid(problem: &str) -> AwsError {
    AwsError::bad_request("InvalidParameterValue", problem)
}

fn rejected(problem: &str) -> AwsError {
    AwsError::bad_request("MessageRejected", problem)
}

/// The fields of a query call.
struct Form(BTreeMap<String, String>);

impl Form {
    fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, AwsError> {
        self.text(name).ok_or_else(|| {
            let problem = format!("Value null at '{name}' failed to satisfy constraint: Member must not be null");
            AwsError::bad_request("ValidationError", problem)
        })
    }

    /// `name.member.1`, `name.member.2`, …
    fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        (1..=MOST_RECIPIENTS + 1).map_while(move |number| self.text(&format!("{name}.member.{number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_may_have_a_name() {
        let parsed = mailbox_of("\"Some One\" <Some.One@Example.COM>").expect("an address");
        assert_eq!(parsed, (Some("Some One".into()), "Some.One@example.com".into()));
    }

    #[test]
    fn line_breaks_and_other_nonsense_are_no_addresses() {
        for nonsense in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a@b, c@d",
            "a@b\r\nBcc: c@d",
            "a@b\n",
            "<a@b",
            "a@b@c",
            "a@b;c@d",
            "X\r\nSubject: y <a@b>",
        ] {
            assert!(mailbox_of(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
