//! `Names`: which object each name of the interpreter is bound to, noted and compared by address.
//!
//! It reads dictionaries with borrowed references and never touches the objects in them: a single reference count
//! changed in each would copy most of the heap's pages after a clone. While nothing is bound differently from one
//! transaction to the next, they share what was noted, and noting is a comparison that writes nothing, of one number
//! for each module where dictionaries have versions (`versions`). Invariant: an address is turned into an object again
//! only by `old`, which checks that the object lives.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::CStr,
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::{
    ffi,
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{room, versions::Versions};

/// One namespace: a module's, or one that the caller named.
struct Space {
    name: String,
    /// Address of its dictionary.
    dict: usize,
    /// Its version when it was noted, if the interpreter keeps one and it is a module's: other dictionaries can be
    /// those of objects, whose attributes can be set beside it.
    version: Option<u64>,
    /// Whether it is a module's; the other ones were given and are called "globals".
    is_module: bool,
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
type Row = (Py<PyAny>, &'static CStr, isize, Option<Py<PyAny>>, Option<Py<PyAny>>);

/// Namespaces with their bindings.
#[derive(Default)]
struct Table {
    spaces: Vec<Space>,
    bindings: Vec<Binding>,
}

/// The items of one dictionary.
struct Items {
    /// Its version when they were noted.
    version: Option<u64>,
    bindings: Vec<Binding>,
}

/// What was noted of the interpreter and of the libraries' modules, by address: what seldom changes.
struct Libraries {
    table: Table,
    /// The dictionaries in the table.
    known: HashSet<usize>,
    /// Name and dictionary of the modules that are not in the table: those of the program's own, and those whose
    /// dictionaries were given.
    left_out: Vec<(String, usize)>,
    /// The dictionaries of the program's own modules.
    own: Vec<usize>,
    /// `sys.modules` with the dictionary of each module, 0 for what is none; and the environment.
    modules: Items,
    dicts: Vec<usize>,
    /// Name and address of the entries of `sys.modules` that are no modules.
    others: BTreeMap<String, usize>,
    environ: Items,
    /// Where each module is among them, by its name's address.
    judged: HashMap<usize, usize>,
    /// The entries of `sys.path`.
    path: Vec<usize>,
    /// The same as copies, whose objects live as long as this.
    environ_copy: Py<PyDict>,
    path_copy: Py<PyList>,
}

/// What the last transaction noted. Of the program's objects it keeps the entries of `sys.path` and of the environment
/// alive, and nothing else.
static LATEST: Mutex<Option<Arc<Libraries>>> = Mutex::new(None);

fn take_latest() -> Option<Arc<Libraries>> {
    LATEST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The bindings of every module and of the given dictionaries. An index counts through the libraries' bindings first,
/// then through the program's own.
#[pyclass(module = "tentative._tentative", frozen)]
pub(crate) struct Names {
    versions: Versions,
    libraries: Arc<Libraries>,
    own: Table,
    /// Copies of the program's own dictionaries, whose objects they keep alive, by the address of the original.
    kept: HashMap<usize, Py<PyDict>>,
}

/// What a transaction looks at.
struct Now<'a, 'py> {
    versions: Versions,
    modules: &'a Bound<'py, PyDict>,
    path: &'a Bound<'py, PyList>,
    environ: &'a Bound<'py, PyDict>,
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

impl Items {
    fn of(dict: &Bound<'_, PyDict>, versions: Versions) -> Items {
        let mut bindings = Vec::with_capacity(dict.len());
        each_item(dict.as_ptr(), |name, value| {
            bindings.push(Binding { name: name as usize, value: value as usize });
        });
        Items { version: versions.of(dict.as_ptr()), bindings }
    }

    /// Whether the same dictionary certainly has the same items now.
    fn has_same_version(&self, dict: &Bound<'_, PyDict>, versions: Versions) -> bool {
        self.version.is_some() && self.version == versions.of(dict.as_ptr())
    }

    /// Whether the same dictionary has the same items now.
    fn are_those_of(&self, dict: &Bound<'_, PyDict>, versions: Versions) -> bool {
        self.has_same_version(dict, versions) || has_items(dict.as_ptr(), &self.bindings)
    }
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

/// Calls `read` with the text of a name; none for keys that are no text.
fn with_text<T>(name: *mut ffi::PyObject, read: impl FnOnce(&str) -> T) -> Option<T> {
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
    Some(read(&String::from_utf8_lossy(bytes)))
}

/// The addresses of the modules' dictionaries, 0 for what is no module.
fn dicts(modules: &Bound<'_, PyDict>) -> Vec<usize> {
    let mut found = Vec::with_capacity(modules.len());
    each_item(modules.as_ptr(), |_, module| {
        found.push(namespace_of(module).map_or(0, |dict| dict as usize));
    });
    found
}

/// The names and addresses of the entries of `sys.modules` that are no modules.
fn others(modules: &Bound<'_, PyDict>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    each_item(modules.as_ptr(), |name, entry| {
        if namespace_of(entry).is_none() {
            with_text(name, |name| found.insert(name.to_owned(), entry as usize));
        }
    });
    found
}

/// The addresses of the modules' names, each with its place among them.
fn numbered_names(modules: &Bound<'_, PyDict>) -> HashMap<usize, usize> {
    let mut found = HashMap::with_capacity(modules.len());
    each_item(modules.as_ptr(), |name, _| {
        let number = found.len();
        found.insert(name as usize, number);
    });
    found
}

/// Calls `visit` with the name and the dictionary of each module.
fn each_module(modules: &Bound<'_, PyDict>, mut visit: impl FnMut(&str, *mut ffi::PyObject)) {
    each_item(modules.as_ptr(), |name, module| {
        if let Some(dict) = namespace_of(module) {
            with_text(name, |name| visit(name, dict));
        }
    });
}

/// The names and the dictionaries of the modules.
fn module_namespaces(modules: &Bound<'_, PyDict>) -> Vec<(String, *mut ffi::PyObject)> {
    let mut found = Vec::with_capacity(modules.len());
    each_module(modules, |name, dict| found.push((name.to_owned(), dict)));
    found
}

/// The namespaces of the program's own modules. What `before` had is judged already: asking takes Python code.
fn own_namespaces<'py>(
    modules: &Bound<'py, PyDict>,
    before: Option<&Libraries>,
    judge: &Bound<'py, PyAny>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let py = modules.py();
    let (mut own, mut unknown) = (Vec::new(), Vec::new());
    each_item(modules.as_ptr(), |name, module| {
        let Some(dict) = namespace_of(module) else { return };
        match before.and_then(|before| before.judgement(name, dict)) {
            Some(true) => own.push(owned(py, dict)),
            Some(false) => {}
            None => unknown.push((owned(py, name), owned(py, dict))),
        }
    });
    for (name, dict) in unknown {
        if judge.call1((name, &dict))?.is_truthy()? {
            own.push(dict);
        }
    }
    own.into_iter().map(|dict| Ok(dict.into_bound(py).cast_into::<PyDict>()?)).collect()
}

fn owned(py: Python<'_>, object: *mut ffi::PyObject) -> Py<PyAny> {
    // SAFETY: wants a live object; callers pass items of a live dictionary, or of one whose objects are kept.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    object.unbind()
}

/// How many items a dictionary has.
fn length(dict: *mut ffi::PyObject) -> usize {
    // SAFETY: wants a live dictionary, as the callers' are.
    let length = unsafe { ffi::PyDict_Size(dict) };
    length.max(0).cast_unsigned()
}

impl Table {
    /// One with room for that many namespaces and bindings: the interpreter can have any number of them.
    fn with_room(spaces: usize, bindings: usize) -> PyResult<Table> {
        let mut table = Table::default();
        table.spaces.try_reserve_exact(spaces).map_err(room::none_left)?;
        table.bindings.try_reserve_exact(bindings).map_err(room::none_left)?;
        Ok(table)
    }

    fn note(&mut self, name: Option<&str>, dict: *mut ffi::PyObject, version: Option<u64>) {
        let start = self.bindings.len();
        let bindings = &mut self.bindings;
        each_item(dict, |name, value| bindings.push(Binding { name: name as usize, value: value as usize }));
        let length = self.bindings.len() - start;
        let (is_module, name) = (name.is_some(), name.unwrap_or("globals").to_owned());
        self.spaces.push(Space { name, dict: dict as usize, version, is_module, start, length });
    }

    fn of(&self, space: &Space) -> &[Binding] {
        &self.bindings[space.start..space.start + space.length]
    }

    /// Whether every namespace binds what it did. Their dictionaries must be alive: those of modules that are still the
    /// same ones are, and the given ones are their callers'.
    fn is_unchanged(&self, versions: Versions) -> bool {
        self.spaces
            .iter()
            .all(|space| self.binds(space, std::ptr::with_exposed_provenance_mut(space.dict), versions))
    }

    /// Whether a namespace binds what it did, in this dictionary, which is the one that was noted.
    fn binds(&self, space: &Space, dict: *mut ffi::PyObject, versions: Versions) -> bool {
        space.version.is_some() && space.version == versions.of(dict) || has_items(dict, self.of(space))
    }
}

impl Libraries {
    /// Notes all modules but those whose dictionaries were chosen to be kept.
    fn note(now: &Now<'_, '_>, own: Vec<usize>, chosen: &HashSet<usize>) -> PyResult<Libraries> {
        let mut bindings = 0;
        each_module(now.modules, |_, dict| bindings += length(dict));
        let mut table = Table::with_room(now.modules.len(), bindings)?;
        let mut left_out = Vec::new();
        room::ensure(false)?;
        each_module(now.modules, |name, dict| {
            if chosen.contains(&(dict as usize)) {
                left_out.push((name.to_owned(), dict as usize));
            } else {
                table.note(Some(name), dict, now.versions.of(dict));
            }
        });
        Ok(Libraries {
            known: table.spaces.iter().map(|space| space.dict).collect(),
            table,
            left_out,
            own,
            judged: numbered_names(now.modules),
            modules: Items::of(now.modules, now.versions),
            dicts: dicts(now.modules),
            others: others(now.modules),
            environ: Items::of(now.environ, now.versions),
            path: (0..now.path.len()).map(|index| entry(now.path, index)).collect(),
            environ_copy: now.environ.copy()?.unbind(),
            path_copy: now.path.get_slice(0, now.path.len()).unbind(),
        })
    }

    /// Whether modules, paths and environment are those that were noted.
    fn has_same_frame(&self, now: &Now<'_, '_>) -> bool {
        now.path.len() == self.path.len()
            && self.path.iter().enumerate().all(|(index, address)| entry(now.path, index) == *address)
            && self.has_same_modules(now)
            && self.environ.are_those_of(now.environ, now.versions)
    }

    /// Whether `sys.modules` has the same modules with the same dictionaries, which are alive then. A module that took
    /// the place of another can lie at its address, so without a version each is asked for its dictionary.
    fn has_same_modules(&self, now: &Now<'_, '_>) -> bool {
        self.modules.has_same_version(now.modules, now.versions)
            || has_items(now.modules.as_ptr(), &self.modules.bindings) && dicts(now.modules) == self.dicts
    }

    /// Whether noting now would note the same, in the same frame; writes nothing, and believes no address without
    /// looking.
    fn is_current(&self, now: &Now<'_, '_>, chosen: &HashSet<usize>) -> bool {
        self.left_out.iter().all(|(_, dict)| chosen.contains(dict))
            && chosen.iter().all(|dict| !self.known.contains(dict))
            && self.table.is_unchanged(now.versions)
    }

    /// What was said of a module of that name with that dictionary: whether it is the program's own.
    fn judgement(&self, name: *mut ffi::PyObject, dict: *mut ffi::PyObject) -> Option<bool> {
        let index = self.judged.get(&(name as usize))?;
        (self.dicts[*index] == dict as usize).then(|| self.own.contains(&(dict as usize)))
    }

    /// The dictionaries of the program's own modules, while `sys.modules` is what was noted.
    fn own_modules<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let dict = |address: &usize| owned(py, std::ptr::with_exposed_provenance_mut(*address));
        self.own.iter().map(|address| Ok(dict(address).into_bound(py).cast_into::<PyDict>()?)).collect()
    }
}

/// Notes the namespaces that are kept, in order: those of modules, then the other ones that were given.
fn note_kept(left_out: &[(String, usize)], given: &[Bound<'_, PyDict>]) -> PyResult<Table> {
    let modules = left_out.iter().map(|(_, dict)| length(std::ptr::with_exposed_provenance_mut(*dict)));
    let bindings = modules.chain(given.iter().map(|dict| length(dict.as_ptr()))).sum();
    let mut table = Table::with_room(left_out.len() + given.len(), bindings)?;
    for (name, dict) in left_out {
        table.note(Some(name), std::ptr::with_exposed_provenance_mut(*dict), None);
    }
    for (index, dict) in given.iter().enumerate() {
        let is_module = left_out.iter().any(|(_, module)| *module == dict.as_ptr() as usize);
        if !is_module && !given[..index].iter().any(|earlier| earlier.is(dict)) {
            table.note(None, dict.as_ptr(), None);
        }
    }
    Ok(table)
}

#[pymethods]
impl Names {
    /// Notes the bindings of all modules and of the given dictionaries; keeps the objects of the program's own modules
    /// and of the given dictionaries alive. `judge` says of a module's name and its dictionary whether it is the
    /// program's own. Without `by_version` items are compared also where dictionaries have
    /// versions.
    #[new]
    #[pyo3(signature = (modules, given, judge, path, environ, by_version=true))]
    fn new(
        py: Python<'_>,
        modules: &Bound<'_, PyDict>,
        given: Vec<Bound<'_, PyDict>>,
        judge: &Bound<'_, PyAny>,
        path: &Bound<'_, PyList>,
        environ: &Bound<'_, PyDict>,
        by_version: bool,
    ) -> PyResult<Names> {
        room::ensure(false)?;
        let versions = if by_version { Versions::find(py) } else { Versions::none() };
        let now = Now { versions, modules, path, environ };
        // The judge is Python code, which no lock may be held over.
        let before = take_latest();
        let latest = before.clone().filter(|latest| latest.has_same_frame(&now));
        let own_modules = match &latest {
            Some(latest) => latest.own_modules(py)?,
            None => own_namespaces(modules, before.as_deref(), judge)?,
        };
        let address = |dict: &Bound<'_, PyDict>| dict.as_ptr() as usize;
        let chosen: HashSet<usize> = own_modules.iter().chain(&given).map(address).collect();
        // Looked at before anything is allocated in the interpreter: the collector could take modules away.
        let current = latest.filter(|latest| latest.is_current(&now, &chosen));
        let mut kept = HashMap::with_capacity(chosen.len());
        for dict in own_modules.iter().chain(&given) {
            kept.insert(address(dict), dict.copy()?.unbind());
        }
        let libraries = match current {
            Some(current) => current,
            None => Arc::new(Libraries::note(&now, own_modules.iter().map(address).collect(), &chosen)?),
        };
        *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&libraries));
        let own = note_kept(&libraries.left_out, &given)?;
        Ok(Names { versions, libraries, own, kept })
    }

    /// The entries of `sys.path` as they were.
    #[getter]
    fn path(&self, py: Python<'_>) -> Py<PyList> {
        self.libraries.path_copy.clone_ref(py)
    }

    /// The environment as it was.
    #[getter]
    fn environ(&self, py: Python<'_>) -> Py<PyDict> {
        self.libraries.environ_copy.clone_ref(py)
    }

    /// Whether nothing at all is bound differently now; quick, and without a write that would copy a page.
    fn unchanged(
        &self,
        modules: &Bound<'_, PyDict>,
        path: &Bound<'_, PyList>,
        environ: &Bound<'_, PyDict>,
    ) -> bool {
        let now = Now { versions: self.versions, modules, path, environ };
        self.libraries.has_same_frame(&now)
            && self.own.is_unchanged(now.versions)
            && self.libraries.table.is_unchanged(now.versions)
    }

    /// Compares with the bindings now.
    fn compare(
        &self,
        py: Python<'_>,
        modules: &Bound<'_, PyDict>,
        given: Vec<Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        room::ensure(false)?;
        let mut rows = Vec::new();
        let modules_before = self.places().filter(|place| place.space.is_module);
        let mut before: HashMap<&str, Place<'_>> =
            modules_before.map(|place| (place.space.name.as_str(), place)).collect();
        let mut seen = HashSet::new();
        let mut others_before = self.libraries.others.clone();
        for (name, entry) in others(modules) {
            match (before.remove(name.as_str()).is_some(), others_before.remove(&name)) {
                (false, Some(address)) if address == entry => {}
                (false, None) => rows.push(module_row(&name, c"created", py)?),
                _ => rows.push(module_row(&name, c"modified", py)?),
            }
        }
        for (name, dict) in module_namespaces(modules) {
            match before.remove(name.as_str()) {
                None if others_before.remove(&name).is_some() => {
                    rows.push(module_row(&name, c"modified", py)?);
                }
                None => rows.push(module_row(&name, c"created", py)?),
                Some(place) if place.space.dict != dict as usize => {
                    rows.push(module_row(&name, c"modified", py)?);
                }
                Some(place) => {
                    seen.insert(dict as usize);
                    place.compare(py, dict, &mut rows)?;
                }
            }
        }
        // Those that were given are alive, also when their module is gone.
        for dict in given.iter().map(Bound::as_ptr).filter(|dict| seen.insert(*dict as usize)) {
            if let Some(place) = self.places().find(|place| place.space.dict == dict as usize) {
                place.compare(py, dict, &mut rows)?;
            }
        }
        let mut gone: Vec<&str> =
            before.into_keys().chain(others_before.keys().map(String::as_str)).collect();
        gone.sort_unstable();
        for name in gone {
            rows.push(module_row(name, c"deleted", py)?);
        }
        list(py, rows)
    }

    /// The addresses of the old name and value with that index.
    fn addresses(&self, index: usize) -> Option<(usize, usize)> {
        self.binding(index).map(|(_, binding)| (binding.name, binding.value))
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
        let (space, binding) = self.binding(index)?;
        // Making the copy can run the collector, whose callbacks can rebind names: believe what is in it, no more.
        let mut lives = self.kept.get(&space.dict).is_some_and(|copy| has_item(copy.as_ptr(), &binding));
        if !lives {
            let modules = module_namespaces(modules).into_iter().map(|(_, dict)| dict);
            let dict =
                modules.chain(given.iter().map(Bound::as_ptr)).find(|dict| *dict as usize == space.dict)?;
            lives = has_item(dict, &binding);
        }
        let object = |address: usize| owned(py, std::ptr::with_exposed_provenance_mut(address));
        lives.then(|| (object(binding.name), object(binding.value)))
    }

    /// How many names were noted.
    fn __len__(&self) -> usize {
        self.libraries.table.bindings.len() + self.own.bindings.len()
    }
}

fn module_row(name: &str, kind: &'static CStr, py: Python<'_>) -> PyResult<Row> {
    Ok((text(py, "sys.modules")?, kind, -1, Some(text(py, name)?), None))
}

/// A text object, or the error that there is no memory for it, where PyO3's own panics.
fn text(py: Python<'_>, text: &str) -> PyResult<Py<PyAny>> {
    // SAFETY: reads that many bytes; the interpreter's lock is held.
    let object = unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed()) };
    owned_or_error(py, object)
}

fn owned_or_error(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<Py<PyAny>> {
    // SAFETY: wants an owned reference, or null and an error that is set: callers pass what has just been made.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) };
    object.map(Bound::unbind)
}

/// The rows as a list of tuples, likewise.
fn list(py: Python<'_>, rows: Vec<Row>) -> PyResult<Py<PyAny>> {
    // SAFETY: wants the interpreter's lock, which is held.
    let list = unsafe { ffi::PyList_New(0) };
    let list = owned_or_error(py, list)?.into_bound(py).cast_into::<PyList>()?;
    // SAFETY: gives a borrowed reference to the constant, which lives for ever.
    let none = unsafe { ffi::Py_None() };
    let pointer = |object: &Option<Py<PyAny>>| object.as_ref().map_or(none, Py::as_ptr);
    for (space, kind, index, name, value) in &rows {
        let (space, kind, name, value) = (space.as_ptr(), kind.as_ptr(), pointer(name), pointer(value));
        // SAFETY: the format names live objects, a C string and a signed size, in this order.
        let row = unsafe { ffi::Py_BuildValue(c"(OsnOO)".as_ptr(), space, kind, *index, name, value) };
        list.append(owned_or_error(py, row)?)?;
    }
    Ok(list.into_any().unbind())
}

/// A namespace with its old bindings, and the index of the first of them.
struct Place<'a> {
    space: &'a Space,
    old: &'a [Binding],
    first: usize,
}

impl Names {
    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let libraries = &self.libraries.table;
        [(libraries, 0), (&self.own, libraries.bindings.len())].into_iter().flat_map(|(table, offset)| {
            table.spaces.iter().map(move |space| Place {
                space,
                old: table.of(space),
                first: offset + space.start,
            })
        })
    }

    fn binding(&self, index: usize) -> Option<(&Space, Binding)> {
        self.places().find_map(|place| Some((place.space, *place.old.get(index.checked_sub(place.first)?)?)))
    }
}

impl Place<'_> {
    fn compare(&self, py: Python<'_>, dict: *mut ffi::PyObject, rows: &mut Vec<Row>) -> PyResult<()> {
        let (space, old) = (self.space, self.old);
        if has_items(dict, old) {
            return Ok(());
        }
        let (mut before, mut created) = (HashMap::<usize, (usize, usize)>::new(), Vec::new());
        before.try_reserve(old.len()).map_err(room::none_left)?;
        created.try_reserve_exact(length(dict)).map_err(room::none_left)?;
        rows.try_reserve(length(dict) + old.len()).map_err(room::none_left)?;
        before.extend(old.iter().enumerate().map(|(index, binding)| (binding.name, (index, binding.value))));
        let name_of_space = text(py, &space.name)?;
        each_item(dict, |name, value| match before.remove(&(name as usize)) {
            Some((_, known)) if known == value as usize => {}
            Some((index, _)) => {
                let index = (self.first + index) as isize;
                let (name, value) = (owned(py, name), owned(py, value));
                rows.push((name_of_space.clone_ref(py), c"modified", index, Some(name), Some(value)));
            }
            None => created.push((owned(py, name), owned(py, value))),
        });
        for (name, value) in created {
            rows.push((name_of_space.clone_ref(py), c"created", -1, Some(name), Some(value)));
        }
        let mut gone: Vec<usize> = before.into_values().map(|(index, _)| index).collect();
        gone.sort_unstable();
        for index in gone {
            rows.push((name_of_space.clone_ref(py), c"deleted", (self.first + index) as isize, None, None));
        }
        Ok(())
    }
}
