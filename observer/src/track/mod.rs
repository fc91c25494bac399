//! Who opened a connection, between whom it really is, and which of the records that tell of it is shown.

mod conntrack;
