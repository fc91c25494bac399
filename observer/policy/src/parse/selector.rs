//! Label selectors of both dialects.

use super::check;
use crate::{
    label::{Operator, Requirement, Selector},
    source::field::{Field, Read},
};

/// Reads a LabelSelector; `key` turns a key as it is written into a source and a key.
pub(super) fn read<'a>(
    field: &Field<'a>,
    key: impl Fn(&'a str, &Field<'_>) -> Read<(Option<Box<str>>, Box<str>)>,
) -> Read<Selector> {
    let map = field.map(&["matchLabels", "matchExpressions"], &[])?;
    let mut requirements = Vec::new();
    if let Some(labels) = map.get("matchLabels") {
        for (name, value) in labels.any_map()?.pairs() {
            let (source, key) = key(name, &value)?;
            let operator = Operator::In(vec![check::label_value(&value)?.into()]);
            requirements.push(Requirement { source, key, operator });
        }
    }
    let expressions = map.get("matchExpressions").map(|field| field.list()).transpose()?.unwrap_or_default();
    for expression in expressions {
        requirements.push(requirement(&expression, &key)?);
    }
    Ok(Selector(requirements))
}

fn requirement<'a>(
    field: &Field<'a>,
    key: impl Fn(&'a str, &Field<'_>) -> Read<(Option<Box<str>>, Box<str>)>,
) -> Read<Requirement> {
    let map = field.map(&["key", "operator", "values"], &[])?;
    let key_field = map.need("key", "the label's key")?;
    let (source, key) = key(key_field.text()?, &key_field)?;
    let operator_field = map.need("operator", "In, NotIn, Exists or DoesNotExist")?;
    let values_field = map.get("values");
    let values = values_field.as_ref().map(Field::list).transpose()?.unwrap_or_default();
    let values: Vec<Box<str>> =
        values.iter().map(|value| check::label_value(value).map(Into::into)).collect::<Read<_>>()?;
    let name = operator_field.text()?;
    let operator = match name {
        "In" | "NotIn" if values.is_empty() => {
            return Err(values_field
                .as_ref()
                .unwrap_or(field)
                .fault(format!("{name} needs values; write at least one")));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let place = values_field.as_ref().unwrap_or(field);
            return Err(place.fault(format!("{name} has no values; take them out, or write In or NotIn")));
        }
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => {
            return Err(operator_field
                .fault(format!("{name:?} is no operator; write In, NotIn, Exists or DoesNotExist")));
        }
    };
    Ok(Requirement { source, key, operator })
}
