//! Mails, by SES.

use auth::mail::Mail;
use aws_sdk_ses::Client;
use aws_sdk_ses::types::{Body, Content, Destination, Message};

use crate::aws::Aws;
use crate::outcome::{Code, Failure};

pub(crate) struct Post {
    client: Client,
    sender: String,
}

/// What SES made of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    Taken,
    /// SES works, and did not take this mail.
    Refused,
}

impl Post {
    pub(crate) fn new(aws: &Aws, sender: String) -> Post {
        Post { client: Client::new(&aws.config), sender }
    }

    /// One SendEmail.
    ///
    /// Without a mail it is made to nobody, which SES refuses: nobody is mailed, and the call is the same from outside.
    pub(crate) async fn send(&self, mail: Option<&Mail>) -> Result<Posted, Failure> {
        let (to, subject, text, html) = match mail {
            Some(mail) => (Some(mail.to.as_str()), &*mail.subject, &*mail.text, &*mail.html),
            None => (None, "-", "-", "-"),
        };
        let fault = Failure::Fault(Code::FaultSes);
        let body = Body::builder().text(content(text)?).html(content(html)?).build();
        let message = Message::builder().subject(content(subject)?).body(body).build();
        let destination = Destination::builder().set_to_addresses(to.map(|to| vec![to.to_owned()])).build();
        let send = self.client.send_email().source(&self.sender).destination(destination).message(message);
        match send.send().await {
            Ok(_) => Ok(Posted::Taken),
            Err(error) => match error.raw_response().map(|response| response.status().as_u16()) {
                Some(400) => Ok(Posted::Refused),
                _ => Err(fault),
            },
        }
    }
}

fn content(data: &str) -> Result<Content, Failure> {
    Content::builder().charset("UTF-8").data(data).build().map_err(|_| Failure::Fault(Code::FaultSes))
}
