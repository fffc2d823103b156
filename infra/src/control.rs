//! How a command talks with the process that holds a stage: one JSON object a line, over loopback, after a first line
//! with the token that only the owner of the stage's folder can read.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::stage::{Folder, Ports};

/// The file in which the serving process says how it is reached.
pub(crate) const FILE: &str = "serving.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serving {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    pub(crate) token: String,
    /// Which build of this program serves; another one is replaced.
    pub(crate) build: String,
    pub(crate) ports: Ports,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Request {
    /// Answers [`Reply::Done`].
    Ping,
    /// Creates a resource or brings it to `inputs`; answers [`Reply::Applied`].
    Apply { type_token: String, inputs: Json },
    /// Deletes a resource; one that is not there counts as deleted. Answers [`Reply::Done`].
    Delete { type_token: String, id: String, inputs: Json },
    /// How many items a table holds; answers [`Reply::Count`].
    CountItems { table: String },
    /// Ends the stage's processes; answers [`Reply::Done`] first.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub(crate) enum Reply {
    Done,
    Applied { id: String, outputs: Json },
    Count { count: u64 },
    Failed { message: String },
}

/// A connection to the serving process.
pub(crate) struct Client {
    pub(crate) serving: Serving,
    connection: BufReader<TcpStream>,
}

impl Client {
    /// Connects to the process that serves the stage; `None` when there is none.
    pub(crate) fn connect(folder: &Folder) -> Result<Option<Self>> {
        let Some(serving) = folder.read_json::<Serving>(FILE)? else {
            return Ok(None);
        };
        // Left by a process that was killed: nobody listens there, or somebody who doesn't know the token.
        let Ok(stream) = TcpStream::connect(("127.0.0.1", serving.port)) else {
            return Ok(None);
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self { connection: BufReader::new(stream), serving };
        let greeted = writeln!(client.connection.get_mut(), "{}", client.serving.token)
            .map_err(anyhow::Error::from)
            .and_then(|()| client.ask(&Request::Ping));
        Ok(greeted.is_ok().then_some(client))
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let lost = "the process that serves the stage has ended; run `cargo up` to start it again";
        self.connection.get_mut().write_all(line.as_bytes()).context(lost)?;
        line.clear();
        self.connection.read_line(&mut line).context(lost)?;
        match serde_json::from_str(&line).context(lost)? {
            Reply::Failed { message } => bail!(message),
            reply => Ok(reply),
        }
    }
}
