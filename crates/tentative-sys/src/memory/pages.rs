//! Page-map entries (Documentation/admin-guide/mm/pagemap.rst) and what two of them say about one page.
//!
//! Invariant: a page is called unchanged only when that is proven, by equal frames or by a write-protection mark.

/// One entry of `/proc/PID/pagemap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    const FRAME: u64 = (1 << 55) - 1;

    pub(crate) const fn present(self) -> bool {
        self.0 >> 63 & 1 == 1
    }

    pub(crate) const fn swapped(self) -> bool {
        self.0 >> 62 & 1 == 1
    }

    /// A page of a file or of shared memory, not a private copy.
    pub(crate) const fn of_file(self) -> bool {
        self.0 >> 61 & 1 == 1
    }

    /// A guard region (6.13).
    pub(crate) const fn guard(self) -> bool {
        self.0 >> 58 & 1 == 1
    }

    /// Write-protected by userfaultfd and not written since (5.14).
    pub(crate) const fn marked(self) -> bool {
        self.0 >> 57 & 1 == 1
    }

    pub(crate) const fn populated(self) -> bool {
        self.present() || self.swapped()
    }

    /// A private page: the process's own content, not a file's.
    pub(crate) const fn private(self) -> bool {
        self.populated() && !(self.present() && self.of_file())
    }

    /// Frame number or place in swap; 0 where the reader may not know it.
    pub(crate) const fn frame(self) -> u64 {
        self.0 & Self::FRAME
    }
}

/// How written pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Equal frame numbers prove equality; needs the privilege to see them.
    Frames,
    /// Write-protection marks that the branch set right after the clone; the origin has not run since.
    Marks,
    /// Neither: every private page counts as written.
    Nothing,
}

/// What has to be done to one page of the origin so that it is the branch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing, it is the same.
    Keep,
    /// Its content is to be copied.
    Copy,
    /// It is to be dropped, so that it reads as zero or as the file's.
    Drop,
    /// It is to become a guard.
    Guard,
    /// It is a guard no longer; its content is to be copied where there is one.
    Unguard,
}

/// Compares the entries of one page that both processes map from the same backing.
pub(crate) fn compare(origin: Entry, branch: Entry, means: Means) -> Act {
    // Most pages, when frames are seen: all of both entries is the same.
    if matches!(means, Means::Frames)
        && origin.0 == branch.0
        && branch.present()
        && branch.frame() != 0
        && !branch.guard()
    {
        return Act::Keep;
    }
    if branch.guard() {
        return if origin.guard() { Act::Keep } else { Act::Guard };
    }
    if origin.guard() {
        return Act::Unguard;
    }
    if !branch.private() {
        return if origin.private() { Act::Drop } else { Act::Keep };
    }
    let same = match means {
        Means::Frames => {
            origin.present() == branch.present() && origin.frame() == branch.frame() && branch.frame() != 0
        }
        // A mark on a page that the origin does not have cannot come from the clone. Nor is a mark without a page
        // proof: where a marked private page of a file was dropped (MADV_DONTNEED) the kernel leaves a marker that
        // looks like a swapped page with its mark still on.
        Means::Marks => branch.present() && branch.marked() && origin.private(),
        Means::Nothing => false,
    };
    if same { Act::Keep } else { Act::Copy }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE: u64 = 1 << 61;
    const MARK: u64 = 1 << 57;
    const GUARD: u64 = 1 << 58;

    #[test]
    fn only_proof_keeps_a_private_page() {
        let cases = [
            (PRESENT | 7, PRESENT | 7, Means::Frames, Act::Keep),
            (PRESENT | 7, PRESENT | 8, Means::Frames, Act::Copy),
            (PRESENT, PRESENT, Means::Frames, Act::Copy),
            (PRESENT, PRESENT | MARK, Means::Marks, Act::Keep),
            (PRESENT, PRESENT, Means::Marks, Act::Copy),
            (PRESENT, SWAPPED | MARK, Means::Marks, Act::Copy),
            (SWAPPED, SWAPPED | MARK, Means::Marks, Act::Copy),
            (0, PRESENT | MARK, Means::Marks, Act::Copy),
            (PRESENT, PRESENT | MARK, Means::Nothing, Act::Copy),
            (PRESENT, 0, Means::Marks, Act::Drop),
            (PRESENT, PRESENT | FILE, Means::Frames, Act::Drop),
            (PRESENT | FILE, PRESENT | FILE, Means::Frames, Act::Keep),
            (0, 0, Means::Nothing, Act::Keep),
            (0, GUARD, Means::Nothing, Act::Guard),
            (GUARD, PRESENT, Means::Nothing, Act::Unguard),
        ];
        for (origin, branch, means, act) in cases {
            assert_eq!(compare(Entry(origin), Entry(branch), means), act, "{origin:x} {branch:x} {means:?}");
        }
    }
}
