PS1='guest# '
