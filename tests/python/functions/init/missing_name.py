from json import nothing_of_the_kind
