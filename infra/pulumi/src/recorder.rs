//! [`Recorder`]: a monitor that only writes down what was registered.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use crate::{Error, Monitor, Registered, Registration, Value};

/// Records registrations for tests of programs. Each property that a program reads back is its input of that name, or
/// what `computed` answers for it.
pub struct Recorder {
    stack: String,
    computed: fn(&Registration) -> BTreeMap<String, Value>,
    recorded: Mutex<Vec<Registration>>,
}

impl Recorder {
    pub fn new(stack: &str, computed: fn(&Registration) -> BTreeMap<String, Value>) -> Self {
        Self { stack: stack.to_owned(), computed, recorded: Mutex::default() }
    }

    /// Everything registered so far, in the program's order.
    pub fn registrations(&self) -> Vec<Registration> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        recorded.sort_by_key(|registration| registration.order);
        recorded
    }
}

impl Monitor for Recorder {
    fn register(
        &self,
        registration: Registration,
    ) -> Pin<Box<dyn Future<Output = Result<Registered, Error>> + Send + '_>> {
        let mut outputs = registration.inputs.clone();
        outputs.extend((self.computed)(&registration));
        let urn = format!("urn:pulumi:{}::recorded::{}::{}", self.stack, registration.type_token, registration.name);
        let id = Some(format!("{}-id", registration.name));
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner).push(registration);
        Box::pin(async move { Ok(Registered { urn, id, outputs }) })
    }

    fn register_stack_outputs(
        &self,
        _outputs: BTreeMap<String, Value>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}
