// Takes the place of a script of the theme (1.5 MB) that draws icons which the theme's fonts hold too.
