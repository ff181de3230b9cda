//! The difference between each upstream's clock and the proxy's, learned from AWS's refusals and shared among the workers.
//!
//! AWS accepts a signature that is a few minutes off (S3: 15, others: 5) and rejects others with `RequestTimeTooSkewed`,
//! `InvalidSignatureException` or similar. The proxy does not read bodies, so it relies on the headers of each such refusal:
//! the status, AWS's request id, and a `date` that differs from the proxy's clock.
//!
//! | part | its job |
//! | --- | --- |
//! | `refusal` | recognizes such a refusal by its headers, and reads its date |
//! | `table` | the difference for each host, in a worker and in the proxy's shared data |
//! | `gauges` | the differences by the hosts that a policy names, for the metrics |

mod gauges;
mod refusal;
mod table;

pub use gauges::SkewGauges;
pub use refusal::{date_of_refusal, is_refusal};
pub use table::ClockSkew;
