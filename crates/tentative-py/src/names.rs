//! `Names`: which object each name of the interpreter is bound to, noted and compared by address.
//!
//! It reads dictionaries with borrowed references and never touches the objects in them: a single reference count
//! changed in each would copy most of the heap's pages after a clone. Invariant: an address is turned into an object
//! again only by `old`, which checks that the object lives.

use std::collections::HashMap;

use pyo3::{
    ffi,
    prelude::*,
    types::{PyDict, PyList},
};

/// One namespace: a module's, or one that the caller named.
struct Space {
    name: String,
    /// Address of its dictionary.
    dict: usize,
    /// Where its bindings start in `bindings`, and how many there are.
    start: usize,
    length: usize,
}

/// A name and the object it was bound to, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Binding {
    name: usize,
    value: usize,
}

/// What `compare` tells for one name: space, kind, index of the old binding or -1, name and value now.
type Row = (String, &'static str, isize, Option<Py<PyAny>>, Option<Py<PyAny>>);

/// The bindings of every module and of the given dictionaries.
#[pyclass(module = "tentative._tentative", frozen)]
pub(crate) struct Names {
    spaces: Vec<Space>,
    bindings: Vec<Binding>,
    /// The items of `sys.modules` and of the environment.
    modules: Vec<Binding>,
    environ: Vec<Binding>,
    /// The entries of `sys.path`.
    path: Vec<usize>,
    /// Copies of the dictionaries whose objects are kept alive, by the address of the original.
    kept: HashMap<usize, Py<PyDict>>,
}

/// Calls `visit` for each item of a dictionary, with borrowed references.
fn each_item(dict: *mut ffi::PyObject, mut visit: impl FnMut(*mut ffi::PyObject, *mut ffi::PyObject)) {
    let (mut position, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    loop {
        // SAFETY: PyDict_Next wants a live dictionary that is not changed during the loop: the callers' is alive,
        // the interpreter's lock is held, and `visit` runs no Python code that could change it.
        let more = unsafe { ffi::PyDict_Next(dict, &raw mut position, &raw mut key, &raw mut value) };
        if more == 0 {
            return;
        }
        visit(key, value);
    }
}

/// A dictionary's items by address.
fn items(dict: *mut ffi::PyObject) -> Vec<Binding> {
    let mut found = Vec::new();
    each_item(dict, |name, value| found.push(Binding { name: name as usize, value: value as usize }));
    found
}

/// Whether a dictionary has exactly these items, in this order; without allocating.
fn has_items(dict: *mut ffi::PyObject, old: &[Binding]) -> bool {
    let (mut same, mut position) = (true, 0);
    each_item(dict, |name, value| {
        let now = Binding { name: name as usize, value: value as usize };
        same &= old.get(position) == Some(&now);
        position += 1;
    });
    same && position == old.len()
}

/// Whether a dictionary has an item with these addresses.
fn has_item(dict: *mut ffi::PyObject, wanted: &Binding) -> bool {
    let mut found = false;
    each_item(dict, |name, value| {
        found |= *wanted == Binding { name: name as usize, value: value as usize };
    });
    found
}

/// The address of a list's entry at an index below its length.
fn entry(list: &Bound<'_, PyList>, index: usize) -> usize {
    // SAFETY: wants a list and an index below its length; the callers count up to it, with the interpreter's lock held.
    let entry = unsafe { ffi::PyList_GetItem(list.as_ptr(), index as ffi::Py_ssize_t) };
    entry as usize
}

/// The address of a module's dictionary; none for what is no module.
fn namespace_of(module: *mut ffi::PyObject) -> Option<*mut ffi::PyObject> {
    // SAFETY: wants a live object; it was just read from sys.modules.
    if unsafe { ffi::PyModule_Check(module) } == 0 {
        return None;
    }
    // SAFETY: wants a module, which was just checked; the reference is borrowed from it.
    let dict = unsafe { ffi::PyModule_GetDict(module) };
    (!dict.is_null()).then_some(dict)
}

/// Copies the text of a name; none for keys that are no text.
fn text_of(name: *mut ffi::PyObject) -> Option<String> {
    // SAFETY: wants a live object; it is a key of a live dictionary.
    if unsafe { ffi::PyUnicode_Check(name) } == 0 {
        return None;
    }
    let mut length = 0;
    // SAFETY: wants a text object, which was just checked.
    let bytes = unsafe { ffi::PyUnicode_AsUTF8AndSize(name, &raw mut length) };
    if bytes.is_null() {
        // SAFETY: drops the error that surrogates raise; wants the interpreter's lock, which is held.
        unsafe { ffi::PyErr_Clear() };
        return None;
    }
    // SAFETY: the interpreter says that so many bytes are readable there while the object lives.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize) };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// The namespaces to look at, in order: every module's, then the given ones that no module has.
fn namespaces(modules: &Bound<'_, PyDict>, given: &[Bound<'_, PyDict>]) -> Vec<(String, *mut ffi::PyObject)> {
    let mut found = Vec::with_capacity(modules.len() + given.len());
    each_item(modules.as_ptr(), |name, module| {
        if let (Some(name), Some(dict)) = (text_of(name), namespace_of(module)) {
            found.push((name, dict));
        }
    });
    for dict in given {
        if found.iter().all(|(_, known)| *known != dict.as_ptr()) {
            found.push(("globals".to_owned(), dict.as_ptr()));
        }
    }
    found
}

fn owned(py: Python<'_>, object: *mut ffi::PyObject) -> Py<PyAny> {
    // SAFETY: wants a live object; callers pass items of a live dictionary, or of one whose objects are kept.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    object.unbind()
}

#[pymethods]
impl Names {
    /// Notes the bindings of all modules and of the given dictionaries; keeps the objects of `keep` alive.
    #[new]
    fn new(
        modules: &Bound<'_, PyDict>,
        given: Vec<Bound<'_, PyDict>>,
        keep: Vec<Bound<'_, PyDict>>,
        path: &Bound<'_, PyList>,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<Names> {
        let mut names = Names {
            spaces: Vec::new(),
            bindings: Vec::new(),
            modules: items(modules.as_ptr()),
            environ: items(environ.as_ptr()),
            path: (0..path.len()).map(|index| entry(path, index)).collect(),
            kept: HashMap::new(),
        };
        for (name, dict) in namespaces(modules, &given) {
            let start = names.bindings.len();
            let bindings = &mut names.bindings;
            each_item(dict, |name, value| {
                bindings.push(Binding { name: name as usize, value: value as usize })
            });
            let length = names.bindings.len() - start;
            names.spaces.push(Space { name, dict: dict as usize, start, length });
        }
        for dict in keep.iter().chain(&given) {
            names.kept.insert(dict.as_ptr() as usize, dict.copy()?.unbind());
        }
        Ok(names)
    }

    /// Whether nothing at all is bound differently now; quick, and without a write that would copy a page.
    fn unchanged(
        &self,
        modules: &Bound<'_, PyDict>,
        path: &Bound<'_, PyList>,
        environ: &Bound<'_, PyDict>,
    ) -> bool {
        let same_path = path.len() == self.path.len()
            && self.path.iter().enumerate().all(|(index, address)| entry(path, index) == *address);
        same_path
            && has_items(modules.as_ptr(), &self.modules)
            && has_items(environ.as_ptr(), &self.environ)
            && self.spaces.iter().all(|space| {
                // The modules are the same ones, so their dictionaries are alive; the given ones are their callers'.
                let dict: *mut ffi::PyObject = std::ptr::with_exposed_provenance_mut(space.dict);
                has_items(dict, &self.bindings[space.start..space.start + space.length])
            })
    }

    /// Compares with the bindings now.
    fn compare(
        &self,
        py: Python<'_>,
        modules: &Bound<'_, PyDict>,
        given: Vec<Bound<'_, PyDict>>,
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut before: HashMap<&str, &Space> =
            self.spaces.iter().map(|space| (space.name.as_str(), space)).collect();
        for (name, dict) in namespaces(modules, &given) {
            match before.remove(name.as_str()) {
                None => rows.push(module_row(name, "created", py)),
                Some(space) if space.dict != dict as usize => rows.push(module_row(name, "modified", py)),
                Some(space) => self.compare_space(py, space, dict, &mut rows),
            }
        }
        let mut gone: Vec<&str> = before.into_keys().collect();
        gone.sort_unstable();
        rows.extend(gone.into_iter().map(|name| module_row(name.to_owned(), "deleted", py)));
        rows
    }

    /// The addresses of the old name and value with that index.
    fn addresses(&self, index: usize) -> Option<(usize, usize)> {
        self.bindings.get(index).map(|binding| (binding.name, binding.value))
    }

    /// The old name and value with that index, if they live for certain: they are kept, or bound like that now, as
    /// in the origin after a rollback.
    fn old(
        &self,
        py: Python<'_>,
        index: usize,
        modules: &Bound<'_, PyDict>,
        given: Vec<Bound<'_, PyDict>>,
    ) -> Option<(Py<PyAny>, Py<PyAny>)> {
        let (binding, space) = (self.bindings.get(index)?, self.space_of(index)?);
        // Making the copy can run the collector, whose callbacks can rebind names: believe what is in it, no more.
        let mut lives = self.kept.get(&space.dict).is_some_and(|copy| has_item(copy.as_ptr(), binding));
        if !lives {
            let namespaces = namespaces(modules, &given);
            let (_, dict) = namespaces.iter().find(|(_, dict)| *dict as usize == space.dict)?;
            lives = has_item(*dict, binding);
        }
        let object = |address: usize| owned(py, std::ptr::with_exposed_provenance_mut(address));
        lives.then(|| (object(binding.name), object(binding.value)))
    }

    /// How many names were noted.
    fn __len__(&self) -> usize {
        self.bindings.len()
    }
}

fn module_row(name: String, kind: &'static str, py: Python<'_>) -> Row {
    let name = pyo3::types::PyString::new(py, &name).into_any().unbind();
    ("sys.modules".to_owned(), kind, -1, Some(name), None)
}

impl Names {
    fn space_of(&self, index: usize) -> Option<&Space> {
        self.spaces.iter().find(|space| (space.start..space.start + space.length).contains(&index))
    }

    fn compare_space(&self, py: Python<'_>, space: &Space, dict: *mut ffi::PyObject, rows: &mut Vec<Row>) {
        let old = &self.bindings[space.start..space.start + space.length];
        if has_items(dict, old) {
            return;
        }
        let mut before: HashMap<usize, (usize, usize)> =
            old.iter().enumerate().map(|(index, binding)| (binding.name, (index, binding.value))).collect();
        let mut created = Vec::new();
        each_item(dict, |name, value| match before.remove(&(name as usize)) {
            Some((_, known)) if known == value as usize => {}
            Some((index, _)) => {
                let index = (space.start + index) as isize;
                let (name, value) = (owned(py, name), owned(py, value));
                rows.push((space.name.clone(), "modified", index, Some(name), Some(value)));
            }
            None => created.push((owned(py, name), owned(py, value))),
        });
        for (name, value) in created {
            rows.push((space.name.clone(), "created", -1, Some(name), Some(value)));
        }
        let mut gone: Vec<usize> = before.into_values().map(|(index, _)| index).collect();
        gone.sort_unstable();
        for index in gone {
            rows.push((space.name.clone(), "deleted", (space.start + index) as isize, None, None));
        }
    }
}
