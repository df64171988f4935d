//! Amounts, ranges and attributes.

use std::collections::BTreeMap;

use super::{field, limits};
use crate::amounts::Amounts;
use crate::attributes::{AttributeValue, Attributes, OrderedRanges};
use crate::error::Invalid;
use crate::pb;
use crate::quantity::Scalar;
use crate::ranges::{MAX_RANGES, RangeSet};
use crate::resources::{Dimension, Resources, Shortage, check_ports};

impl From<&Resources> for pb::Resources {
    fn from(resources: &Resources) -> Self {
        Self {
            cpus_millis: resources.scalar(Dimension::Cpus),
            mem_bytes: resources.scalar(Dimension::Mem),
            disk_bytes: resources.scalar(Dimension::Disk),
            gpus_millis: resources.scalar(Dimension::Gpus),
            custom_millis: resources.custom().map(|(name, amount)| (name.to_owned(), amount)).collect(),
            ports: from_ranges(resources.ports()),
        }
    }
}

impl From<Resources> for pb::Resources {
    fn from(resources: Resources) -> Self {
        Self::from(&resources)
    }
}

impl TryFrom<pb::Resources> for Resources {
    type Error = Invalid;
    fn try_from(wire: pb::Resources) -> Result<Self, Invalid> {
        field::at_most("custom", wire.custom_millis.len(), limits::CUSTOM_SCALARS)?;
        let mut resources = Self::new();
        let known = [wire.cpus_millis, wire.mem_bytes, wire.disk_bytes, wire.gpus_millis];
        for (dimension, amount) in Dimension::ALL.into_iter().zip(known) {
            resources = resources.with_scalar(dimension.name(), amount)?;
        }
        for (name, amount) in wire.custom_millis {
            if Dimension::ALL.into_iter().any(|d| d.name() == name) {
                return Err(Invalid::new("custom", name, "a name that has no field of its own"));
            }
            resources = resources.with_scalar(&name, amount).map_err(|e| e.within("custom"))?;
        }
        let ports = to_ranges("ports", wire.ports)?;
        check_ports(&ports)?;
        Ok(resources.with_ports(ports))
    }
}

/// Amounts by name as the wire has them.
pub(super) fn from_amounts(amounts: &Amounts) -> BTreeMap<String, i64> {
    amounts.iter().map(|(name, amount)| (name.to_owned(), amount)).collect()
}

/// Amounts by name.
pub(super) fn to_amounts(field: &str, wire: BTreeMap<String, i64>) -> Result<Amounts, Invalid> {
    field::at_most(field, wire.len(), limits::CUSTOM_SCALARS)?;
    let with = |all: Amounts, (name, amount): (String, i64)| all.with(&name, amount);
    wire.into_iter().try_fold(Amounts::new(), with).map_err(|e| e.within(field))
}

pub(super) fn from_ranges(ranges: &RangeSet) -> Vec<pb::Range> {
    ranges.ranges().map(|(first, last)| pb::Range { first, last }).collect()
}

pub(super) fn to_ranges(field: &str, wire: Vec<pb::Range>) -> Result<RangeSet, Invalid> {
    field::at_most(field, wire.len(), MAX_RANGES)?;
    let ranges = wire.iter().enumerate().map(|(i, range)| match range.first <= range.last {
        true => Ok((range.first, range.last)),
        false => Err(Invalid::new(
            format!("{field}[{i}]"),
            format!("{}-{}", range.first, range.last),
            "a range whose end does not lie before its start",
        )),
    });
    Ok(RangeSet::from_ranges(ranges.collect::<Result<Vec<_>, _>>()?))
}

impl From<Shortage> for pb::Shortage {
    fn from(shortage: Shortage) -> Self {
        let Shortage { dimension, wanted, available } = shortage;
        Self { dimension, wanted: field::cut(wanted), available: field::cut(available) }
    }
}

impl TryFrom<pb::Shortage> for Shortage {
    type Error = Invalid;
    fn try_from(wire: pb::Shortage) -> Result<Self, Invalid> {
        Ok(Self {
            dimension: field::filled("dimension", wire.dimension, limits::NAME)?,
            wanted: field::text("wanted", wire.wanted, limits::TEXT)?,
            available: field::text("available", wire.available, limits::TEXT)?,
        })
    }
}

impl From<AttributeValue> for pb::AttributeValue {
    fn from(value: AttributeValue) -> Self {
        use pb::attribute_value::Value;
        let value = match value {
            AttributeValue::Scalar(scalar) => Value::ScalarMillis(scalar.millis()),
            AttributeValue::Ranges(ranges) => Value::Ranges(pb::RangeList { ranges: from_ranges(&ranges.0) }),
            AttributeValue::Text(text) => Value::Text(text),
        };
        Self { value: Some(value) }
    }
}

impl TryFrom<pb::AttributeValue> for AttributeValue {
    type Error = Invalid;
    fn try_from(wire: pb::AttributeValue) -> Result<Self, Invalid> {
        use pb::attribute_value::Value;
        Ok(match field::required("value", wire.value)? {
            Value::ScalarMillis(millis) => Self::Scalar(
                Scalar::from_millis(millis).map_err(|e| Invalid { field: "scalar".into(), ..e })?,
            ),
            Value::Ranges(list) => Self::Ranges(OrderedRanges(to_ranges("ranges", list.ranges)?)),
            Value::Text(text) => Self::Text(field::text("text", text, limits::URL)?),
        })
    }
}

/// The attributes as the wire has them.
pub(super) fn from_attributes(attributes: &Attributes) -> BTreeMap<String, pb::AttributeValue> {
    attributes.iter().map(|(name, value)| (name.to_owned(), value.clone().into())).collect()
}

/// Attributes by names without spaces.
pub(super) fn to_attributes(wire: BTreeMap<String, pb::AttributeValue>) -> Result<Attributes, Invalid> {
    field::at_most("attributes", wire.len(), limits::ATTRIBUTES)?;
    let attribute = |(name, value): (String, pb::AttributeValue)| {
        if name.is_empty() || name.len() > limits::NAME || name.chars().any(char::is_whitespace) {
            return Err(Invalid::new("attributes", name, "names of 1 to 255 bytes without spaces"));
        }
        let value = value.try_into().map_err(|e: Invalid| e.within(format_args!("attributes[{name}]")))?;
        Ok((name, value))
    };
    Ok(wire.into_iter().map(attribute).collect::<Result<BTreeMap<_, _>, _>>()?.into())
}
