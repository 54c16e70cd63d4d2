"""What the objects layer cannot tell, in sentences for users."""

GAPS = (
    "objects that were changed in place, without any name being bound anew, are not listed",
    "a name of a library's module that was bound to several objects in turn can look unchanged when the last one got"
    " the first one's address",
    "the old value of a library's name is unknown after a commit if nothing refers to it any more",
    "code that crashes, exits or runs out of time takes the list of its names with it",
)
