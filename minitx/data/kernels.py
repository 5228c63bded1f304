"""The numba kernels that split texts into words and number them by a hash table.

``letters`` holds the letters of all words, one word after the other; ``begin``, where each word begins and the last one
ends; ``places``, the number of the word at each place of the hash table.
"""

import numpy as np

from minitx.base.compiling import ordered_kernel

LETTER, SPACE = 1, 2  # kinds of characters; 0 is what is neither


@ordered_kernel
def number_words(codes, kinds, ends, letters, begin, places, learns, outside, ids, done):
    """Write the numbers of the words of texts to ``ids``; ``ends`` is first where texts end in codes, then in ids.

    A word that is not in the table is put there if it ``learns``, else its number is ``outside``. False if there is no
    room for a new word; ``done`` holds where that is, for the next call: (code point, text, id, words in the table).
    """
    at, text, n_ids, n_words = done
    last_place = places.size - 1
    while text < ends.size:
        stop = ends[text]
        while at < stop:
            kind = kinds[codes[at]]
            if kind == SPACE:
                at += 1
                continue
            end, code = at + 1, mixed(0, codes[at])
            while kind == LETTER and end < stop and kinds[codes[end]] == LETTER:
                code = mixed(code, codes[end])
                end += 1
            size, place = end - at, (code ^ (code >> 15)) & last_place
            number = places[place]
            while number >= 0:  # until it is this word's
                first = begin[number]
                i = size if begin[number + 1] - first == size else -1
                while i > 0 and letters[first + i - 1] == codes[at + i - 1]:
                    i -= 1
                if i == 0:
                    break
                place = (place + 1) & last_place
                number = places[place]
            if number < 0 and not learns:
                number = outside
            elif number < 0:
                first = begin[n_words]
                if first + size > letters.size or n_words + 2 > begin.size:
                    done[:] = at, text, n_ids, n_words
                    return False
                letters[first:first + size] = codes[at:end]
                places[place] = number = n_words
                n_words += 1
                begin[n_words] = first + size
            ids[n_ids] = number
            n_ids, at = n_ids + 1, end
        ends[text] = n_ids
        text += 1
    done[:] = at, text, n_ids, n_words
    return True


@ordered_kernel
def place_words(letters, begin, n_words, places):
    """Put the numbers of all words into an empty hash table."""
    for word in range(n_words):
        code = 0
        for i in range(begin[word], begin[word + 1]):
            code = mixed(code, letters[i])
        place = (code ^ (code >> 15)) & (places.size - 1)
        while places[place] >= 0:
            place = (place + 1) & (places.size - 1)
        places[place] = word


@ordered_kernel
def mixed(code, letter):
    """The code of a word that goes on with ``letter``, from its code until there; both below 2^31."""
    return ((code ^ np.int64(letter)) * 0x9E3779B1) & 0x7FFFFFFF
