//! Answers of QEMU in `qapi`'s types, which are those of QEMU 9.1 and refuse values of enumerations that came later. docs/architecture.md
//! says which types are safe to use.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// An answer; none if QEMU refused to give it, or if it does not fit.
pub fn one<T: DeserializeOwned>(answer: &Value) -> Option<T> {
    T::deserialize(answer).ok()
}

/// The elements of a list that fit their type. What does not is another's: a kind of thing that vmrun does not make.
pub fn each<T: DeserializeOwned>(answer: &Value) -> Vec<T> {
    answer.as_array().into_iter().flatten().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use qapi::qmp::JobInfo;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_a_newer_qemu_knows_hides_nothing_else() {
        let job = |id: &str, kind: &str| json!({ "id": id, "type": kind, "status": "running", "current-progress": 0, "total-progress": 1, "new": [] });
        let jobs: Vec<JobInfo> = each(&json!([job("a", "from-the-future"), job("b", "snapshot-save"), 3]));
        assert_eq!(jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(each::<JobInfo>(&Value::Null).is_empty() && one::<JobInfo>(&Value::Null).is_none());
    }
}
