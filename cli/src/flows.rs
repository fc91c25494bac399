//! `observe flows`: from a server, or from files.

use crate::{
    Failure,
    args::{Flows, ServerArgs},
    connect::Target,
    offline,
    print::Printer,
    select, session,
};

pub(crate) async fn run(server: &ServerArgs, flows: Flows) -> Result<(), Failure> {
    let printer = Printer::new(&flows.format, flows.messages, flows.select.follow)?;
    let request = select::request(&flows.select, flows.filters)?;
    if flows.select.input_file.is_empty() {
        session::run(Target::choose(server)?, request, printer).await
    } else {
        offline::run(&flows.select.input_file, &request, printer)
    }
}
