//! What clients saw, and whether it can be true.

mod linearizable;
mod outcome;
mod unique;

pub use linearizable::{
    Condition, NotLinearizable, Operation, RegisterHistory, check_register, check_register_within,
};
pub use outcome::Outcome;
pub use unique::{UniqueWrite, Verdict, Violation, count, judge};

#[cfg(test)]
mod linearizable_test;
