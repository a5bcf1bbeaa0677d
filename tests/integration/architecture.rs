//! Checks the shape of the crate by its sources' text: modules import each other in no circle, and layers one way.

mod imports;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use imports::Imports;

/// The layers (modules at the top of the crate), each with those that it may import, which stand further down: so that what is
/// below can be understood, and tested, without what is above.
const LAYERS: &str = "
run: check sync about servers discovery replication types singer catalog state config positions pg logging cli method error
check: sync discovery replication types singer catalog state config positions pg cli method error
sync: discovery replication types singer catalog state config positions pg logging method error
about: config cli
servers: config pg error
discovery: types catalog pg error
replication: positions pg error
types: singer pg
singer: error
catalog: json_file method error
state: positions pg json_file method error
config: json_file method error
positions: pg
pg: error
json_file: error
logging:
cli:
method:
error:
";

#[test]
fn modules_import_each_other_in_no_circle() {
    let circles = circles(&imports::of_the_crate());
    assert!(circles.is_empty(), "modules that import each other: {circles:#?}");
}

#[test]
fn layers_import_one_way() {
    let lines = LAYERS.lines().filter_map(|line| line.split_once(':'));
    let layers: Vec<(&str, Vec<&str>)> =
        lines.map(|(layer, lower)| (layer, lower.split_whitespace().collect())).collect();
    let mut lower: BTreeMap<&str, &[&str]> = BTreeMap::new();
    for (layer, allowed) in layers.iter().rev() {
        let upwards: Vec<_> = allowed.iter().filter(|other| !lower.contains_key(**other)).collect();
        assert!(upwards.is_empty(), "the table has {layer} import {upwards:?}, which does not stand below");
        lower.insert(layer, allowed);
    }
    let mut wrong = BTreeSet::new();
    for (module, imported) in &imports::of_the_crate() {
        let Some(allowed) = lower.get(&*module[0]) else {
            wrong.insert(format!("{} is in no layer", module[0]));
            continue;
        };
        let foreign = imported.iter().filter(|other| other[0] != module[0] && !allowed.contains(&&*other[0]));
        wrong.extend(foreign.map(|other| format!("{} imports {}", module.join("/"), other.join("/"))));
    }
    assert!(wrong.is_empty(), "against the order of the layers: {wrong:#?}");
}

/// Finds circles: of each module that is in one the shortest, once.
fn circles(imports: &Imports) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in imports.keys() {
        let (mut from, mut queue) = (BTreeMap::new(), VecDeque::from([start]));
        while let Some(module) = queue.pop_front() {
            for next in imports.get(module).into_iter().flatten() {
                if !from.contains_key(next) {
                    from.insert(next, module);
                    queue.push_back(next);
                }
            }
        }
        if !from.contains_key(start) {
            continue;
        }
        let mut circle = vec![from[start]];
        while circle[circle.len() - 1] != start {
            circle.push(from[circle[circle.len() - 1]]);
        }
        circle.reverse();
        let first = (0..circle.len()).min_by_key(|at| circle[*at]).unwrap_or_default();
        circle.rotate_left(first);
        circle.push(circle[0]);
        found.insert(circle.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" -> "));
    }
    found
}

#[test]
fn a_circle_is_told_once_from_its_first_module_on() {
    let module = |name: &str| vec![name.to_owned()];
    let edges = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "a"), ("e", "f"), ("f", "g"), ("g", "e")];
    let mut imports = Imports::new();
    for (from, to) in edges {
        imports.entry(module(from)).or_default().insert(module(to));
    }
    assert_eq!(circles(&imports).into_iter().collect::<Vec<_>>(), ["b -> c -> b", "e -> f -> g -> e"]);
}
